"""Pack one feature file per video into shards, which training maps; run it again after a break and it goes on.

    python scripts/video_feature_extractor/shard_feature.py --features data/feat/feat_how2_s3d

Without arguments it packs HowTo100M from and to where the YAMLs look for it. Listed videos without usable features are
left out and listed, with the reason, in `<target>/{train,val}_not_packed.json`.
"""

from __future__ import annotations

import argparse
import os
import sys

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.shards.packing import pack_features
from mmpt.shards.video_table import read_id_list
from mmpt.shards.writer import SHARD_SIZE
from mmpt.utils.command import run_command
from mmpt.utils.log import get_logger

logger = get_logger("shard_feature")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _pack(_parser().parse_args(argv)), stopped="run the same command again to go on")


def _pack(args: argparse.Namespace) -> None:
    _check(args)
    lists = {Split.TRAIN: args.train_list, Split.VALID: args.val_list}
    chosen = {split: read_id_list(path) for split, path in lists.items() if split.shard_name in args.splits}
    for split, ids in chosen.items():
        report = pack_features(
            args.features, args.target, split, ids,
            shard_size=args.shard_size, workers=args.workers, max_missing=args.max_missing,
        )  # fmt: skip
        logger.info(
            "%s: %d of %d videos, %.1f hours, in %d shards (%d written now)", split.shard_name, report.num_packed,
            report.num_listed, report.num_seconds / 3600, report.num_shards, report.num_written,
        )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--features", default="data/feat/feat_how2_s3d", help="folder of <id>.npy (%(default)s)")
    parser.add_argument("--target", default="data/feat/feat_how2_s3d_shard_small", help="where to (%(default)s)")
    parser.add_argument("--train-list", default="data/how2/how2_s3d_train.lst", help="training ids (%(default)s)")
    parser.add_argument("--val-list", default="data/how2/how2_s3d_val.lst", help="validation ids (%(default)s)")
    parser.add_argument("--splits", nargs="+", choices=("train", "val"), default=("train", "val"), help="which to pack")
    parser.add_argument("--shard-size", type=int, default=SHARD_SIZE, help="videos per shard (%(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="shards at once (%(default)s)")
    parser.add_argument("--max-missing", type=float, default=1.0, help="largest share left out (%(default)s: any)")
    return parser


def _check(args: argparse.Namespace) -> None:
    for flag, value in (("--shard-size", args.shard_size), ("--workers", args.workers)):
        if value < 1:
            raise DataError(f"`{flag}` must be at least 1, but is {value}.")
    if not 0 <= args.max_missing <= 1:
        raise DataError(f"`--max-missing` must be from 0 to 1, but is {args.max_missing}.")


if __name__ == "__main__":
    sys.exit(main())
