"""The options of `mmpt extract`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from mmpt.cli.main import Device
from mmpt.errors import LaunchError
from mmpt.media.encoders import folder_names
from mmpt.media.s3d import S3D_WEIGHTS


def _underscored(name: str, text: str, least: int = 0, most: int | None = None) -> Any:
    """Returns an option with two spellings: the release's, with underscores, and with hyphens."""
    return Option(
        f"--{name}", f"--{name.replace('_', '-')}", min=least, max=most, help=text
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    vdir: Annotated[
        str, Option(help="Folders, lists or CSV files of videos, separated by commas.")
    ]
    fdir: Annotated[Path, Option(help="Folder to write the features to.")]
    encoder: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            show_default="s3d",
            help="The network: s3d, hf:<model on the Hugging Face hub, or folder>, timm:<model>, "
            "or my_module.MyEncoder. Repeat the option to run several networks.",
        ),
    ] = None
    fps: Annotated[
        float | None,
        Option(
            min=0.001, max=1000, help="Rows per second, with hf: and timm:. Default: 1."
        ),
    ] = None
    type: Annotated[
        Literal["s3d"], Option(help="The release's option for --encoder s3d.")
    ] = "s3d"
    batch_size: Annotated[
        int, _underscored("batch_size", "Clips per batch on a GPU.", 1)
    ] = 64
    half_precision: Annotated[
        int,
        _underscored("half_precision", "1: write float16; 0: write float32.", most=1),
    ] = 1
    num_decoding_thread: Annotated[
        int, _underscored("num_decoding_thread", "Number of decoding threads.", 1)
    ] = 4
    l2_normalize: Annotated[
        int, _underscored("l2_normalize", "1: divide every row by its L2 norm.", most=1)
    ] = 1
    hflip: Annotated[int, Option(min=0, max=1, help="1: mirror the videos.")] = 0
    shard: Annotated[
        str,
        Option(metavar="I/N", help="Extract only part I (from 0) of N of the videos."),
    ] = "0/1"
    limit: Annotated[
        int | None,
        Option(min=1, help="Extract only the first N videos."),
    ] = None
    device: Device = None
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"], Option(help="Precision of the network.")
    ] = "fp32"
    weights: Annotated[Path, Option(help="File of the S3D weights.")] = S3D_WEIGHTS
    words: Annotated[
        Path | None,
        Option(
            "--dict",
            help="Vocabulary of S3D's text tower (s3d_dict.npy). Features do not need it.",
        ),
    ] = None
    random_weights: Annotated[
        bool,
        Option(
            "--random-weights",
            help="Use random weights to try the pipeline. The features are useless.",
        ),
    ] = False
    jobtype: Annotated[
        Literal["local", "slurm"],
        Option(help="Extract here, or in jobs on a SLURM cluster."),
    ] = "local"
    num_parts: Annotated[
        int,
        _underscored(
            "num_parts", "Number of SLURM jobs, each of which has its --shard.", 1
        ),
    ] = 1
    dryrun: Annotated[
        bool,
        Option(
            "--dryrun", help="Print the script of the SLURM jobs, and submit nothing."
        ),
    ] = False
    slurm: Annotated[
        list[str] | None,
        Argument(
            metavar="slurm.key=value", help="Resources of a SLURM job: slurm.mem=32G."
        ),
    ] = None

    @property
    def encoders(self) -> list[str]:
        """Names of the encoders, at least one, without the slash at the end of a folder."""
        return [name.rstrip("/") for name in self.encoder or ["s3d"]]

    @property
    def folders(self) -> list[Path]:
        """Folder of the features of each encoder."""
        if len(self.encoders) == 1:
            return [self.fdir]
        return [self.fdir / name for name in folder_names(self.encoders)]

    @property
    def part(self) -> tuple[int, int]:
        """The index of this run's part of the videos, and the number of parts."""
        index, _, number = self.shard.partition("/")
        if not (index.isdecimal() and number.isdecimal() and int(index) < int(number)):
            raise LaunchError(
                f"`--shard` must be I/N with I from 0 to N - 1, such as 0/8, but is {self.shard!r}."
            )
        return int(index), int(number)


def to_argv(options: Options) -> list[str]:
    """Returns the options as command-line arguments, without those that concern the cluster.

    Options with their default value are left out.
    """
    of_cluster = ("jobtype", "num_parts", "dryrun", "slurm")
    # The other options are spelled like their fields.
    spellings = {"words": "dict", "random_weights": "random-weights"}
    argv = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in of_cluster or value == field.default:
            continue
        option = f"--{spellings.get(field.name, field.name)}"
        if value is True:
            argv.append(option)
            continue
        values = value if isinstance(value, list) else [value]
        for each in values:
            argv += [option, str(each)]
    return argv
