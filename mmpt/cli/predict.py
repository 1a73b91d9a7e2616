"""Scores checkpoints on the test sets of YAMLs, as `--jobtype local_predict` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import typer

from mmpt.cli.app import Command, Device
from mmpt.cli.devices import choose_device
from mmpt.cli.scoring import predict, report_path, selection_rule
from mmpt.config import RunConfig, load_config
from mmpt.errors import LaunchError
from mmpt.evaluators import Results, render_markdown, render_table
from mmpt.reporting import write_report
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class Table(NamedTuple):
    """What one evaluation adds to what is printed."""

    columns: dict[str, Results]
    """`chance` and a column per checkpoint."""
    checkpoints: tuple[str, ...]
    notes: str
    """What to say below the table."""


def join_tables(tables: Sequence[Table]) -> Iterator[Mapping[str, Results]]:
    """Yield the columns of each table to print: of one, if all are of the same checkpoints and
    other metrics.
    """
    metrics = [name for table in tables for name in table.columns["chance"]]
    if len(set(metrics)) < len(metrics) or len({table.checkpoints for table in tables}) > 1:
        yield from (table.columns for table in tables)
    elif tables:
        columns = [table.columns for table in tables]
        yield {
            name: {metric: result for c in columns for metric, result in c[name].items()}
            for name in columns[0]
        }


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments and options of the command."""

    yamls: Annotated[
        list[str] | None,
        typer.Argument(metavar="YAML", help="Evaluation YAMLs, scored one after another."),
    ] = None
    taskconfig: Annotated[
        list[str] | None,
        typer.Option(metavar="YAML", help="The same, as the release documents HTM-Align."),
    ] = None
    device: Device = None
    all_checkpoints: Annotated[
        bool,
        typer.Option(
            "--all-checkpoints",
            help="Score every checkpoint*.pt in the folder above eval.save_path.",
        ),
    ] = False
    save_predictions: Annotated[
        bool, typer.Option("--save-predictions", help="Keep scores and vectors as .npz.")
    ] = False
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Score the videos that have features when some have none."
        ),
    ] = False
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the table as Markdown, to paste into a README."),
    ] = False
    videos: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The test set's videos, for key frames in the report."),
    ] = None
    no_report: Annotated[
        bool, typer.Option("--no-report", help="Write no HTML report next to results.json.")
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
        _print_tables(tables, render_markdown if options.markdown else render_table)


def _score_config(
    config: RunConfig, device: torch.device, options: Options, *, titled: bool
) -> Table:
    """Scores one YAML, writes its report, and returns what to print.

    Args:
        titled: put the YAML's path above its notes.
    """
    scored = predict(
        config,
        device=device,
        all_checkpoints=options.all_checkpoints,
        keep_predictions=options.save_predictions,
        allow_missing=options.allow_missing,
        videos=options.videos,
    )
    if not options.no_report:
        logger.info("report: %s", write_report(scored, report_path(config)))
    notes = [f"\n{scored.coverage}"] if scored.coverage else []
    if options.all_checkpoints:
        value = f"{config.metric[0]} {scored.best_value:.4f}"
        best = f"{scored.rows[scored.best]['checkpoint']} ({value})"
        notes.append(f"\nscored: {selection_rule(config)}\nbest: {best}")
    if notes and titled:
        notes.insert(0, f"\n{config.path}:")
    checkpoints = tuple(row["checkpoint"] for row in scored.rows)
    return Table(scored.columns, checkpoints, "\n".join(notes))


def _print_tables(tables: Sequence[Table], render: Callable[[Mapping[str, Results]], str]) -> None:
    for number, columns in enumerate(join_tables(tables)):
        print(*([""] if number else []), render(columns), sep="\n")
    for table in tables:
        if table.notes:
            print(table.notes)
    sys.stdout.flush()


main = Command(score, options=Options, stopped="run it again")


if __name__ == "__main__":
    sys.exit(main())
