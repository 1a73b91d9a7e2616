"""Packs one feature file per video into shards, which training maps into memory."""

import os
from enum import Enum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.batch import Split
from mmpt.cli.app import Command
from mmpt.prepare.shards.packing import pack_features
from mmpt.shards.video_table import read_id_list
from mmpt.shards.writer import SHARD_SIZE


class SplitName(str, Enum):
    """A split by its name in the names of shards."""

    TRAIN = "train"
    VAL = "val"


SplitNames = list[SplitName] | None


def pack(
    # `--splits train val`: typer's options take one value each, so the second name comes here.
    more_splits: Annotated[SplitNames, Argument(hidden=True, metavar="SPLIT")] = None,
    *,
    features: Annotated[Path, Option(help="Folder of <id>.npy.")] = Path("data/feat/feat_how2_s3d"),
    target: Annotated[Path, Option(help="Folder of the shards.")] = Path(
        "data/feat/feat_how2_s3d_shard_small"
    ),
    train_list: Annotated[Path, Option(help="Training ids.")] = Path(
        "data/how2/how2_s3d_train.lst"
    ),
    val_list: Annotated[Path, Option(help="Validation ids.")] = Path("data/how2/how2_s3d_val.lst"),
    splits: Annotated[
        SplitNames, Option(help="Splits to pack: train, val, or both.  [default: train val]")
    ] = None,
    shard_size: Annotated[int, Option(min=1, help="Videos per shard.")] = SHARD_SIZE,
    workers: Annotated[int, Option(min=1, help="Shards at once.")] = os.cpu_count() or 1,
    max_missing: Annotated[
        float, Option(min=0, max=1, help="Largest share of videos to leave out; 1: any.")
    ] = 1.0,
) -> None:
    """Pack one feature file per video into shards, which training maps into memory.

    Run it again after a break and it continues. Without arguments it packs HowTo100M from and to
    the places that the YAMLs name. Listed videos without usable features are left out; their ids
    and the reasons are in `<target>/{train,val}_not_packed.json`.
    """
    chosen = [*(splits or ()), *(more_splits or ())] or list(SplitName)
    lists = {Split.TRAIN: train_list, Split.VALID: val_list}
    ids = {s: read_id_list(path) for s, path in lists.items() if s.shard_name in chosen}
    for split, listed in ids.items():
        pack_features(
            features,
            target,
            split,
            listed,
            shard_size=shard_size,
            workers=workers,
            max_missing=max_missing,
        )


main = Command(pack, stopped="run the same command again to continue")
