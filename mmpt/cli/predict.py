"""Scores checkpoints on the test sets of YAMLs, as `--jobtype local_predict` does."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from typer import Argument, Option

from mmpt import reporting
from mmpt.cli import scoring
from mmpt.cli.app import Command, Device, choose_device
from mmpt.config import RunConfig, load_config
from mmpt.errors import LaunchError
from mmpt.evaluators import Results, render_markdown, render_table
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class Table(NamedTuple):
    """What one evaluation adds to what is printed."""

    columns: dict[str, Results]
    """`chance` and a column per checkpoint."""
    checkpoints: list[str]
    notes: list[str]
    """Lines below the table."""


def join_tables(tables: Sequence[Table]) -> list[dict[str, Results]]:
    """Returns the columns of each table to print: of one, if all are of the same checkpoints and
    other metrics.
    """
    metrics = [metric for table in tables for metric in table.columns["chance"]]
    same = all(table.checkpoints == tables[0].checkpoints for table in tables)
    if not same or len(set(metrics)) < len(metrics):
        return [table.columns for table in tables]
    joined: dict[str, Results] = {}
    for table in tables:
        for name, results in table.columns.items():
            joined[name] = joined.get(name, {}) | results
    return [joined]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments and options of the command."""

    yamls: Annotated[
        list[str] | None,
        Argument(metavar="YAML", help="Evaluation YAMLs, scored one after another."),
    ] = None
    taskconfig: Annotated[
        list[str] | None,
        Option(metavar="YAML", help="The same, as the release documents HTM-Align."),
    ] = None
    device: Device = None
    all_checkpoints: Annotated[
        bool,
        Option(
            "--all-checkpoints",
            help="Score every checkpoint*.pt in the folder above eval.save_path.",
        ),
    ] = False
    save_predictions: Annotated[
        bool, Option("--save-predictions", help="Keep scores and vectors as .npz.")
    ] = False
    allow_missing: Annotated[
        bool,
        Option("--allow-missing", help="Score the videos that have features when some have none."),
    ] = False
    markdown: Annotated[
        bool, Option("--markdown", help="Print the table as Markdown, to paste into a README.")
    ] = False
    videos: Annotated[
        str | None,
        Option(metavar="DIR", help="The test set's videos, for key frames in the report."),
    ] = None
    no_report: Annotated[
        bool, Option("--no-report", help="Write no HTML report next to results.json.")
    ] = False


def score(options: Options) -> None:
    """Score checkpoints on the test sets of evaluation YAMLs.

    What was scored is printed even if a later evaluation fails.
    """
    yamls = [*(options.yamls or ()), *(options.taskconfig or ())]
    if not yamls:
        raise LaunchError("name at least one evaluation YAML.")
    if not options.no_report:
        import matplotlib  # noqa: F401  if it is missing, that is reported before scoring
    if options.videos:
        import av  # noqa: F401  the same
    configs = [load_config(path) for path in yamls]  # all are read before the first is scored
    device = choose_device(options.device)
    tables: list[Table] = []
    try:
        for config in configs:
            tables.append(_score_config(config, device, options, titled=len(configs) > 1))
    finally:
        if tables:
            render = render_markdown if options.markdown else render_table
            notes = [line for table in tables for line in table.notes]
            text = "\n\n".join(map(render, join_tables(tables)))
            print(text, *notes, sep="\n", flush=True)


def _score_config(
    config: RunConfig, device: torch.device, options: Options, *, titled: bool
) -> Table:
    """Scores one YAML, writes its report, and returns what to print.

    Args:
        titled: put the YAML's path above its notes.
    """
    run = scoring.predict(
        config,
        device=device,
        all_checkpoints=options.all_checkpoints,
        keep_predictions=options.save_predictions,
        allow_missing=options.allow_missing,
        videos=options.videos,
    )
    if not options.no_report:
        path = reporting.write_report(run, scoring.report_path(config))  # imports matplotlib
        logger.info("report: %s", path)
    checkpoints = [row["checkpoint"] for row in run.rows]
    notes = ["", run.coverage] if run.coverage else []
    if options.all_checkpoints:
        best = f"{checkpoints[run.best]} ({config.metric[0]} {run.best_value:.4f})"
        notes += ["", f"scored: {scoring.selection_rule(config)}", f"best: {best}"]
    if notes and titled:
        notes = ["", f"{config.path}:", *notes]
    return Table(run.columns, checkpoints, notes)


main = Command(score, options=Options, stopped="run it again")


if __name__ == "__main__":
    sys.exit(main())
