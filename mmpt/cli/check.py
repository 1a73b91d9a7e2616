"""Reads everything that a training YAML names, prints statistics, and lists what is damaged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmpt.cli.app import Command, Overrides
from mmpt.config import load_config
from mmpt.errors import EXIT_CODE
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.prepare.check.figure import save_histograms
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

MAX_SHOWN = 50
logger = get_logger("check")


def check(
    yaml: Annotated[str, typer.Argument(metavar="YAML", help="A training YAML.")],
    overrides: Overrides = None,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/check"),
    max_shards: Annotated[
        int | None, typer.Option(min=1, help="Read so many shards per split, spread evenly.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Shards at once.")] = os.cpu_count() or 1,
) -> int:
    """Read everything that a training YAML names, print statistics, and list what is damaged.

    `--out` gets `statistics.json` and `histograms.png`. The exit code is 2 when something is
    damaged.
    """
    config = load_config(yaml, overrides or [])
    report = check_dataset(config, max_shards=max_shards, workers=workers)
    print(report.table())
    write_json(out / "statistics.json", report.to_dict())
    save_histograms(out / "histograms.png", report.splits)
    logger.info("%s: statistics.json and histograms.png", out)
    if not report.damage:
        return 0
    print(f"error: {yaml}: {len(report.damage)} damaged:", file=sys.stderr)
    for damage in report.damage[:MAX_SHOWN]:
        print(f"  - {damage}", file=sys.stderr)
    if len(report.damage) > MAX_SHOWN:
        rest = len(report.damage) - MAX_SHOWN
        print(f"  and {rest} more in {out}/statistics.json", file=sys.stderr)
    return EXIT_CODE


main = Command(check, stopped="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
