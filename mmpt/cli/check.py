"""Reads everything that a training YAML names, prints statistics, and lists what is damaged."""

import os
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.app import Command, Overrides
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.prepare.check.dataset_check import check_dataset
from mmpt.prepare.check.plausible import describe
from mmpt.prepare.check.statistics import save_histograms
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

MAX_SHOWN = 50
logger = get_logger("check")


def check(
    yaml: Annotated[str, Argument(metavar="YAML", help="A training YAML.")],
    overrides: Overrides = None,
    *,
    out: Annotated[Path, Option(help="Folder of the results.")] = Path("runs/check"),
    max_shards: Annotated[
        int | None, Option(min=1, help="Read so many shards per split, spread evenly.")
    ] = None,
    workers: Annotated[int, Option(min=1, help="Shards at once.")] = os.cpu_count() or 1,
) -> None:
    """Read everything that a training YAML names, print statistics, and list what is damaged or
    implausible.

    `--out` gets `statistics.json` and `histograms.png`. A figure outside its plausible range is a
    warning with the likely cause. The exit code is 2 when something is damaged, or so implausible
    that training would be senseless.
    """
    config = load_config(yaml, overrides or [])
    report = check_dataset(config, max_shards=max_shards, workers=workers)
    print(report.table())
    write_json(out / "statistics.json", report.to_dict())
    save_histograms(out / "histograms.png", report.splits)
    logger.info("%s: statistics.json and histograms.png", out)
    findings = report.findings()
    for text in describe(one for one in findings if one.severity == "warning"):
        logger.warning("implausible: %s", text)
    lines = [f"\n  - {damage}" for damage in report.damage]
    if len(lines) > MAX_SHOWN:
        lines[MAX_SHOWN:] = [f"\n  and {len(lines) - MAX_SHOWN} more in {out}/statistics.json"]
    errors = describe(one for one in findings if one.severity == "error")
    senseless = [f"\n  {text}" for text in errors]
    problems = {f"{len(report.damage)} damaged": lines, "training would be senseless": senseless}
    texts = [f"{yaml}: {what}:{''.join(lines)}" for what, lines in problems.items() if lines]
    if texts:
        raise DataError("\n".join(texts))


main = Command(check, stopped="nothing was written; run the same command again")
