"""Scores checkpoints on the test sets of YAMLs: `python -m mmpt.cli.predict YAML...`, or `--jobtype local_predict`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from mmpt.cli.devices import choose_device
from mmpt.cli.scoring import predict, report_path, selection_rule
from mmpt.config import RunConfig, load_config
from mmpt.evaluators import Results, render_markdown, render_table
from mmpt.reporting import write_report
from mmpt.utils.command import run_command
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
    """Yield the columns of each table to print: of one, if all are of the same checkpoints and other metrics."""
    metrics = [name for table in tables for name in table.columns["chance"]]
    if len(set(metrics)) < len(metrics) or len({table.checkpoints for table in tables}) > 1:
        yield from (table.columns for table in tables)
    elif tables:
        columns = [table.columns for table in tables]
        yield {name: {metric: result for c in columns for metric, result in c[name].items()} for name in columns[0]}


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.taskconfigs += args.taskconfig
    if not args.taskconfigs:
        parser.error("name a YAML at least")
    return run_command(lambda: _score_configs(args), stopped="run it again")


def _score_configs(args: argparse.Namespace) -> None:
    """Score every YAML; what was scored is printed also when a later evaluation fails."""
    configs = [load_config(path) for path in args.taskconfigs]  # all are read before the first is scored
    device = choose_device(args.device)
    tables: list[Table] = []
    try:
        for config in configs:
            tables.append(_score_config(config, device, args))
    finally:
        _print_tables(tables, render_markdown if args.markdown else render_table)


def _score_config(config: RunConfig, device: torch.device, args: argparse.Namespace) -> Table:
    """Score one YAML, write its report, and return what to print."""
    run = predict(
        config,
        device=device,
        all_checkpoints=args.all_checkpoints,
        keep_predictions=args.save_predictions,
        allow_missing=args.allow_missing,
        videos=args.videos,
    )
    if not args.no_report:
        logger.info("report: %s", write_report(run, report_path(config)))
    notes = [f"\n{run.coverage}"] if run.coverage else []
    if args.all_checkpoints:
        best = f"{run.rows[run.best]['checkpoint']} ({config.metric[0]} {run.best_value:.4f})"
        notes.append(f"\nscored: {selection_rule(config)}\nbest: {best}")
    if notes and len(args.taskconfigs) > 1:
        notes.insert(0, f"\n{config.path}:")
    return Table(run.columns, tuple(row["checkpoint"] for row in run.rows), "\n".join(notes))


def _print_tables(tables: Sequence[Table], render: Callable[[Mapping[str, Results]], str]) -> None:
    for number, columns in enumerate(join_tables(tables)):
        print(*([""] if number else []), render(columns), sep="\n")
    for table in tables:
        if table.notes:
            print(table.notes)
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mmpt.cli.predict", description="Score checkpoints on test sets.")
    parser.add_argument("taskconfigs", nargs="*", metavar="YAML", help="evaluations, scored one after another")
    parser.add_argument(
        "--taskconfig", action="append", default=[], metavar="YAML", help="the same, as the release documents HTM-Align"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: the first GPU, else the CPU)")
    parser.add_argument(
        "--all-checkpoints", action="store_true", help="score every checkpoint*.pt in the folder above eval.save_path"
    )
    parser.add_argument("--save-predictions", action="store_true", help="keep scores and vectors as .npz")
    parser.add_argument(
        "--allow-missing", action="store_true", help="score the videos that have features when some have none"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as markdown, to paste into a README")
    parser.add_argument("--videos", metavar="DIR", help="the test set's videos, for key frames in the report")
    parser.add_argument("--no-report", action="store_true", help="write no HTML report beside results.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
