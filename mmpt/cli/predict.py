"""Scores checkpoints on the test sets of YAMLs, as `--jobtype local_predict` does."""

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

from typer import Argument, Option

from mmpt import reporting
from mmpt.cli import scoring
from mmpt.cli.app import Command, Device, choose_device
from mmpt.config import load_config
from mmpt.errors import LaunchError
from mmpt.evaluators import Results, render_markdown, render_table
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


Tables = list[tuple[Sequence[str], dict[str, Results]]]
"""The checkpoints of each table; its columns, which are `chance` and a column per checkpoint."""


def score(
    yamls: Annotated[
        list[str] | None,
        Argument(metavar="YAML", help="Evaluation YAMLs, scored one after another."),
    ] = None,
    *,
    taskconfig: Annotated[
        list[str] | None,
        Option(metavar="YAML", help="The same, as the release documents HTM-Align."),
    ] = None,
    device: Device = None,
    all_checkpoints: Annotated[
        bool,
        Option(
            "--all-checkpoints",
            help="Score every checkpoint*.pt in the folder above eval.save_path.",
        ),
    ] = False,
    save_predictions: Annotated[
        bool, Option("--save-predictions", help="Keep scores and vectors as .npz.")
    ] = False,
    allow_missing: Annotated[
        bool,
        Option("--allow-missing", help="Score the videos that have features when some have none."),
    ] = False,
    markdown: Annotated[
        bool, Option("--markdown", help="Print the table as Markdown, to paste into a README.")
    ] = False,
    videos: Annotated[
        str | None,
        Option(metavar="DIR", help="The test set's videos, for key frames in the report."),
    ] = None,
    no_report: Annotated[
        bool, Option("--no-report", help="Write no HTML report next to results.json.")
    ] = False,
) -> None:
    """Score checkpoints on the test sets of evaluation YAMLs.

    What was scored is printed even if a later evaluation fails.
    """
    paths = [*(yamls or ()), *(taskconfig or ())]
    if not paths:
        raise LaunchError("name at least one evaluation YAML.")
    if not no_report:
        import matplotlib  # noqa: F401  if it is missing, that is reported before scoring
    if videos:
        import av  # noqa: F401  the same
    configs = [load_config(path) for path in paths]  # all are read before the first is scored
    chosen = choose_device(device)
    tables: Tables = []
    notes: list[str] = []
    try:
        for config in configs:
            run = scoring.predict(
                config,
                device=chosen,
                all_checkpoints=all_checkpoints,
                keep_predictions=save_predictions,
                allow_missing=allow_missing,
                videos=videos,
            )
            if not no_report:
                path = reporting.write_report(run, scoring.report_path(config))
                logger.info("report: %s", path)
            checkpoints = [row["checkpoint"] for row in run.rows]
            add_table(tables, checkpoints, run.columns)
            scored, whole = len(run.positions), len(run.dataset)
            if scored < whole:
                coverage = f"scored on {scored} of {whole} test items: the others have no features"
                notes += ["", f"{config.path}: {coverage}"]
            if all_checkpoints:
                best = f"{checkpoints[run.best]} ({config.metric[0]} {run.best_value:.4f})"
                notes += ["", f"{config.path}: {scoring.selection_rule(config)}", f"best: {best}"]
    finally:
        if tables:
            render = render_markdown if markdown else render_table
            text = "\n\n".join(render(columns) for _, columns in tables)
            print(text, *notes, sep="\n", flush=True)


def add_table(tables: Tables, checkpoints: Sequence[str], columns: Mapping[str, Results]) -> None:
    """Adds the rows of an evaluation to the last table if that is of the same checkpoints and of
    other metrics; else a table.
    """
    if tables and tables[-1][0] == checkpoints:
        joined = tables[-1][1]
        if not joined["chance"].keys() & columns["chance"].keys():
            for name, results in columns.items():
                joined[name] |= results
            return
    tables.append((checkpoints, {name: dict(results) for name, results in columns.items()}))


main = Command(score, stopped="run it again")


if __name__ == "__main__":
    sys.exit(main())
