"""`mmpt pack`: packs feature files, one per video, into shards that training memory-maps."""

from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.batch import Split
from mmpt.cli.main import Command, num_cores
from mmpt.prepare.shards.packing import pack_features
from mmpt.prepare.shards.reading import Source
from mmpt.shards.video_table import read_id_list
from mmpt.shards.writer import SHARD_SIZE


class SplitName(str, Enum):
    """A split, by its name in the file names of shards."""

    TRAIN = "train"
    VAL = "val"


SplitNames = list[SplitName] | None


def pack(
    # The release writes `--splits train val`. A typer option takes one value, so `val` is an
    # argument.
    more_splits: Annotated[SplitNames, Argument(hidden=True, metavar="SPLIT")] = None,
    *,
    features: Annotated[
        Path,
        Option(
            help="Folder of feature files <id>.npy (or .npz, .pt, .pth, .pth.tar, .pkl) or of "
            "WebDataset tars, a tar, an .h5 file, an LMDB folder or file, or a .pkl, .pth or .npz "
            "file of all videos."
        ),
    ] = Path("data/feat/feat_how2_s3d"),
    key: Annotated[
        str | None, Option(help="Name of the array, if videos have several.")
    ] = None,
    encoder: Annotated[
        str | None,
        Option(help="Name of the network, for features without features.json."),
    ] = None,
    fps: Annotated[
        float | None,
        Option(
            min=0.001,
            max=1000,
            help="Rows per second of features without features.json.  [default: 1]",
        ),
    ] = None,
    l2_normalize: Annotated[
        bool,
        Option(
            "--l2-normalize", help="Divide each row of the features by its L2 norm."
        ),
    ] = False,
    target: Annotated[Path, Option(help="Folder to write the shards to.")] = Path(
        "data/feat/feat_how2_s3d_shard_small"
    ),
    train_list: Annotated[
        Path, Option(help="List of the training videos, one id per line.")
    ] = Path("data/how2/how2_s3d_train.lst"),
    val_list: Annotated[Path, Option(help="List of the validation videos.")] = Path(
        "data/how2/how2_s3d_val.lst"
    ),
    splits: Annotated[
        SplitNames,
        Option(help="Splits to pack: train, val, or both.  [default: train val]"),
    ] = None,
    shard_size: Annotated[
        int, Option(min=1, help="Number of videos per shard.")
    ] = SHARD_SIZE,
    workers: Annotated[
        int, Option(min=1, help="Number of shards to pack at the same time.")
    ] = num_cores(),
    max_missing: Annotated[
        float,
        Option(
            min=0, max=1, help="Largest share of listed videos that may be left out."
        ),
    ] = 1.0,
) -> None:
    """Pack feature files, one per video, into shards that training memory-maps.

    Features may have any width. `<target>/features.json` describes them. Without arguments it
    packs HowTo100M, with the paths that the YAMLs name. Listed videos without usable features are
    left out. `<target>/{train,val}_not_packed.json` lists them with the reasons. Run the command
    again after an interruption to continue.
    """
    chosen = [*(splits or ()), *(more_splits or ())] or list(SplitName)
    # Both lists are read first, so that a mistake in the second one is reported at once.
    ids = {}
    for split, path in ((Split.TRAIN, train_list), (Split.VALID, val_list)):
        if split.shard_name in chosen:
            ids[split] = read_id_list(path)
    source = Source(
        features, key=key, encoder=encoder, fps=fps, l2_normalize=l2_normalize
    )
    for split, listed in ids.items():
        pack_features(
            source,
            target,
            split,
            listed,
            shard_size=shard_size,
            workers=workers,
            max_missing=max_missing,
        )


main = Command(pack, interrupt_message="run the same command again to continue")
