"""Read everything that a training YAML names; print its statistics, draw them, and list what is damaged.

    python scripts/check_dataset.py projects/retri/norton/how2_demo.yaml --out runs/check

`--out` gets `statistics.json` and `histograms.png`. The exit code is 2 when something is damaged.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from mmpt.config import load_config
from mmpt.errors import EXIT_CODE, DataError
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.prepare.check.figure import save_histograms
from mmpt.utils.command import run_command
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

MAX_SHOWN = 50
logger = get_logger("check_dataset")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    return run_command(lambda: _check(_parser().parse_intermixed_args(argv)), stopped="nothing was written")


def _check(args: argparse.Namespace) -> int:
    for flag, value in (("--max-shards", args.max_shards), ("--workers", args.workers)):
        if value is not None and value < 1:
            raise DataError(f"`{flag}` must be at least 1, but is {value}.")
    report = check_dataset(load_config(args.yaml, args.overrides), max_shards=args.max_shards, workers=args.workers)
    print(report.table())
    out = Path(args.out)
    write_json(out / "statistics.json", report.to_dict())
    save_histograms(out / "histograms.png", report.splits)
    logger.info("%s: statistics.json and histograms.png", out)
    if not report.damage:
        return 0
    print(f"error: {args.yaml}: {len(report.damage)} damaged:", file=sys.stderr)
    for damage in report.damage[:MAX_SHOWN]:
        print(f"  - {damage}", file=sys.stderr)
    if len(report.damage) > MAX_SHOWN:
        print(f"  and {len(report.damage) - MAX_SHOWN} more in {out}/statistics.json", file=sys.stderr)
    return EXIT_CODE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("yaml", help="training YAML")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the YAML, as in locallaunch.py")
    parser.add_argument("--out", default="runs/check", help="folder of the results (%(default)s)")
    parser.add_argument("--max-shards", type=int, help="read so many shards per split, spread evenly (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="shards at once (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
