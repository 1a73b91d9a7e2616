"""The options of `mmpt prepare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from mmpt.errors import DataError, LaunchError
from mmpt.prepare.shards.reading import Source
from mmpt.shards.writer import SHARD_SIZE


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command."""

    videos: Annotated[
        Path | None, Option(help="Folder of videos, to extract features from.")
    ] = None
    features: Annotated[
        Path | None,
        Option(
            help="Features that exist already, instead of videos: a folder or a file, as for "
            "`mmpt pack`."
        ),
    ] = None
    captions: Annotated[
        Path, Option(help="Folder of captions, named like the videos or features.")
    ]
    language: Annotated[
        list[str] | None,
        Option(
            help="Languages of captions to use, the preferred one first, such as en,de.",
            show_default="en",
        ),
    ] = None
    out: Annotated[Path, Option(help="Folder to write lists and shards to.")] = Path(
        "data/mine"
    )
    yaml: Annotated[Path, Option(help="The training YAML to write.")] = Path(
        "projects/retri/mine/pretrain.yaml"
    )
    recipe: Annotated[
        Literal["norton", "videoclip"],
        Option(help="The recipe that the YAML includes."),
    ] = "norton"
    bert_name: Annotated[
        str, Option(help="BERT to train from: a name on the hub, or a folder.")
    ] = "bert-base-uncased"
    val_share: Annotated[
        float, Option(min=0, max=1, help="Share of the videos to validate on.")
    ] = 0.05
    encoder: Annotated[
        list[str] | None,  # a list, so that a repeated option is noticed
        Option(
            metavar="NAME",
            show_default="s3d",
            help="The network of the features, as for `mmpt extract`, but only one. With "
            "--features, the name of the network that made them, if they have no features.json.",
        ),
    ] = None
    fps: Annotated[
        float | None,
        Option(min=0.001, max=1000, help="Feature rows per second. Default: 1."),
    ] = None
    key: Annotated[
        str | None,
        Option(help="Name of the array, if videos have several in --features."),
    ] = None
    l2_normalize: Annotated[
        bool,
        Option(
            "--l2-normalize",
            help="Divide each row of --features by its L2 norm, as `mmpt extract` does.",
        ),
    ] = False
    weights: Annotated[
        Path | None,
        Option(help="File of the S3D weights. Default: pretrained_models/."),
    ] = None
    random_weights: Annotated[
        bool,
        Option(
            "--random-weights",
            help="Try the pipeline: random S3D weights, and a YAML that starts from BERT.",
        ),
    ] = False
    shard_size: Annotated[int, Option(min=1, help="Number of videos per shard.")] = (
        SHARD_SIZE
    )
    decoders: Annotated[
        int, Option(min=1, help="Number of videos to decode at the same time.")
    ] = 4
    workers: Annotated[
        int, Option(min=1, help="Number of shards to write at the same time.")
    ] = 1

    @property
    def extracted(self) -> Path:
        """Folder of the feature files that are extracted from videos."""
        return self.out / "feat"

    @property
    def source(self) -> Source:
        """Where the features to pack come from."""
        if self.features is None:
            return Source(self.extracted)
        return Source(
            self.features,
            key=self.key,
            encoder=self.encoder[0] if self.encoder else None,
            fps=self.fps,
            l2_normalize=self.l2_normalize,
        )

    @property
    def shards(self) -> Path:
        """Folder of the shards of features and captions."""
        return self.out / "shards"

    @property
    def train_list(self) -> Path:
        """List of the training videos."""
        return self.out / "train.lst"

    @property
    def val_list(self) -> Path:
        """List of the validation videos."""
        return self.out / "val.lst"

    @property
    def corpus(self) -> Path:
        """The captions of all listed videos, as JSON Lines."""
        return self.out / "captions.jsonl"

    def check(self) -> None:
        """Raises an error for options that the command would otherwise reject only hours later."""
        if (self.videos is None) == (self.features is None):
            given = "neither is" if self.videos is None else "both are"
            raise LaunchError(
                f"exactly one of `--videos` and `--features` must be given, but {given}."
            )
        if self.encoder and len(self.encoder) > 1:
            raise LaunchError(
                f"`--encoder` must be given once, but is given {len(self.encoder)} times. Run the "
                "command for each encoder, with an `--out` and a `--yaml` of its own."
            )
        self._check_kind()
        if not self.captions.is_dir():
            raise DataError(
                f"{self.captions}: no such folder. Name where the captions are with `--captions`."
            )
        shards = self.shards.resolve()
        if self.features and shards.is_relative_to(self.features.resolve()):
            raise DataError(
                f"{self.out}: the output must be outside of {self.features}, whose feature files "
                "are read, but is in it. Name another folder with `--out`."
            )

    def _check_kind(self) -> None:
        """Raises LaunchError for options of videos with features, and the other way round."""
        if self.features is None:
            for name in ("key", "l2_normalize"):
                if getattr(self, name):
                    option = name.replace("_", "-")
                    raise LaunchError(
                        f"`--{option}` is an option for `--features`: leave it out with `--videos`."
                    )
            return
        for name in ("weights", "random_weights", "decoders"):
            if getattr(self, name) != getattr(Options, name):
                option = name.replace("_", "-")
                raise LaunchError(
                    f"`--{option}` is an option for videos: leave it out with `--features`. (To "
                    "start from BERT, give `--recipe videoclip`.)"
                )
