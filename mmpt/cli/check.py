"""`mmpt check`: reads all data that a training YAML names and reports statistics and damage."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.main import Command, Overrides, num_cores
from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.prepare.check.dataset_check import DatasetReport, check_dataset
from mmpt.prepare.check.plausible import describe
from mmpt.prepare.check.statistics import save_histograms
from mmpt.utils.io import write_json
from mmpt.utils.log import get_logger

MAX_LISTED = 50
"""Damaged places that the error message lists. `statistics.json` lists all of them."""
logger = get_logger("check")


def check(
    yaml: Annotated[str, Argument(metavar="YAML", help="A training YAML.")],
    overrides: Overrides = None,
    *,
    out: Annotated[Path, Option(help="Folder to write the results to.")] = Path(
        "runs/check"
    ),
    max_shards: Annotated[
        int | None,
        Option(min=1, help="Read only this many shards of each split, spread evenly."),
    ] = None,
    workers: Annotated[
        int, Option(min=1, help="Number of shards to read at the same time.")
    ] = num_cores(),
) -> None:
    """Check the data of a training YAML and print its statistics.

    Reads the lists, features and captions that the YAML names. Writes `statistics.json` and
    `histograms.png` to `--out`. A figure outside its plausible range is logged as a warning with
    the likely cause. The exit code is 2 if something is damaged, or so implausible that training
    would be useless.
    """
    config = load_config(yaml, overrides or [])
    report = check_dataset(config, max_shards=max_shards, workers=workers)
    print(report.table())
    write_json(out / "statistics.json", report.to_dict())
    save_histograms(out / "histograms.png", report.splits)
    logger.info("%s: statistics.json and histograms.png", out)
    warnings = [
        finding for finding in report.findings() if finding.severity == "warning"
    ]
    for text in describe(warnings):
        logger.warning("implausible: %s", text)
    if problems := _problems(report, out):
        raise DataError("\n".join(f"{yaml}: {problem}" for problem in problems))


def _problems(report: DatasetReport, out: Path) -> list[str]:
    """Returns the paragraphs of the error message: damaged data, and data too implausible to use.

    Without either, the list is empty.
    """
    problems = []
    if report.damage:
        lines = [f"\n  - {damage}" for damage in report.damage[:MAX_LISTED]]
        if len(report.damage) > MAX_LISTED:
            num_hidden = len(report.damage) - MAX_LISTED
            lines.append(f"\n  and {num_hidden} more in {out}/statistics.json")
        problems.append(f"{len(report.damage)} damaged:{''.join(lines)}")
    errors = [finding for finding in report.findings() if finding.severity == "error"]
    if errors:
        lines = [f"\n  {text}" for text in describe(errors)]
        problems.append(f"training would be useless:{''.join(lines)}")
    return problems


main = Command(
    check, interrupt_message="nothing was written; run the same command again"
)
