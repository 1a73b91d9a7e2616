"""Score checkpoints on the test sets of YAMLs; `--jobtype local_predict` runs `python -m mmpt.cli.predict YAML...`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from mmpt.batch import Split
from mmpt.cli.compatibility import check_checkpoint_fits
from mmpt.cli.devices import choose_device
from mmpt.config import RunConfig, load_config
from mmpt.datasets import MMDataset, collate
from mmpt.errors import ConfigError, DataError
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    Evaluator,
    FingerprintingLoader,
    Outputs,
    Results,
    file_fingerprint,
    render_markdown,
    render_table,
    save_predictions,
    write_results,
)
from mmpt.models.checkpoint import MOST_LISTED, load_weights
from mmpt.reporting import KeyFrames, Run, write_report
from mmpt.tasks import Task
from mmpt.utils.command import run_command
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class Scored(NamedTuple):
    """One checkpoint's evaluation."""

    model: nn.Module
    outputs: Outputs
    row: dict[str, Any]
    """For the results file."""
    value: float
    """The first number of the first metric, which checkpoints are compared by."""


def checkpoints_to_score(config: RunConfig, all_checkpoints: bool) -> list[Path]:
    """The checkpoints that the YAML names; with `all_checkpoints` those of `selection_rule`, as released."""
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(_search_folder(config).glob("checkpoint*.pt")) if all_checkpoints else []
    known = {path.resolve() for path in found}
    paths = found + [path for path in named if path.resolve() not in known]
    if not paths:
        key = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(str(config.path), [key])
    return paths


def selection_rule(config: RunConfig) -> str:
    """Say what `--all-checkpoints` scores and how the best is chosen."""
    return (
        f"every checkpoint*.pt in {_search_folder(config)} (the folder above `eval.save_path`) in order of name, then "
        "those that `fairseq.common_eval.path` names; the best is chosen on this test set itself, as in the release"
    )


def _search_folder(config: RunConfig) -> Path:
    return Path(os.path.dirname(config.eval.save_path or ""))  # of `runs/x/`, unlike Path.parent, this is runs/x


def predict(
    config: RunConfig,
    *,
    device: torch.device,
    all_checkpoints: bool = False,
    keep_predictions: bool = False,
    allow_missing: bool = False,
    keep_results: bool = True,
    videos: str | None = None,
) -> Run:
    """Score every checkpoint, write `<eval.save_path>/results.json`, and return what tables and reports need.

    Args:
        all_checkpoints: also score what `selection_rule` says.
        keep_predictions: write what each checkpoint predicts beside the results.
        allow_missing: score the videos that have features when some have none.
        keep_results: write the rows; False: only return them.
        videos: folder of the test set's videos, for key frames in a report.
    Raises:
        UserError: a missing or unfit checkpoint, annotation or feature file.
    """
    if not config.is_test:
        raise ConfigError(
            str(config.path), ["a training config cannot be scored; take one with `dataset.split: test`."]
        )
    frames = KeyFrames(videos)
    task = Task.from_config(config, seed=config.seed)
    evaluator = Evaluator(
        PREDICTORS.get(config.predictor or "", "predictor")(config.dataset),
        [METRICS.get(name, "metric")() for name in config.metric],
    )
    paths = checkpoints_to_score(config, all_checkpoints)
    for path in paths:
        check_checkpoint_fits(config, path)
    dataset = _test_dataset(task)
    positions = _positions_to_score(dataset, allow_missing)
    loader = FingerprintingLoader(_loader(Subset(dataset, positions), config, pin_memory=device.type == "cuda"))
    results = Path(config.eval.save_path or ".")
    best_place, rows, best = _score_all(task, paths, evaluator, loader, device, results if keep_predictions else None)
    rows = [row | {"num_items": len(positions), "num_missing": len(dataset) - len(positions)} for row in rows]
    chance = evaluator.chance(best.outputs)
    if keep_results:
        write_results(results / "results.json", rows, settings=config.to_dict(), chance=chance)
    return Run(
        config=config,
        rows=rows,
        names=short_names(paths),
        chance=chance,
        best=best_place,
        best_value=best.value,
        outputs=best.outputs,
        model=best.model,
        device=device,
        dataset=dataset,
        positions=positions,
        frames=frames,
    )


def _score_all(
    task: Task,
    paths: Sequence[Path],
    evaluator: Evaluator,
    loader: FingerprintingLoader,
    device: torch.device,
    predictions: Path | None,
) -> tuple[int, list[dict[str, Any]], Scored]:
    """Evaluate every checkpoint; return the place of the best one, all rows, and the best, the first of equal ones.

    Args:
        predictions: folder to keep what each one predicts in, if anywhere.
    """
    rows: list[dict[str, Any]] = []
    best: tuple[int, Scored] | None = None
    for place, path in enumerate(paths):
        scored = _score(task, path, evaluator, loader, device)
        rows.append(scored.row)
        if predictions is not None:
            save_predictions(predictions / f"{path.parent.name}-{path.stem}.npz", scored.outputs)
        if best is None or scored.value > best[1].value:
            best = place, scored
    assert best is not None, "checkpoints_to_score returns one at least"
    return best[0], rows, best[1]


def _score(task: Task, path: Path, evaluator: Evaluator, loader: FingerprintingLoader, device: torch.device) -> Scored:
    """Evaluate one checkpoint."""
    model = task.build_model(pretrained=False)
    load_weights(model, path)
    begin = time.monotonic()
    outputs, metrics = evaluator(model.to(device), loader, device)
    seconds = time.monotonic() - begin
    logger.info("%s scored in %.1f s", path, seconds)
    row = {
        "task": task.config.name,
        "checkpoint": str(path),
        "fingerprint": file_fingerprint(path),
        "data_fingerprint": loader.fingerprint(),
        "metrics": metrics,
        "seconds": round(seconds, 2),
    }
    return Scored(model, outputs, row, evaluator.best(metrics))


def _test_dataset(task: Task) -> MMDataset:
    dataset = task.build_dataset(Split.TEST)
    if dataset is None:
        raise ConfigError(str(task.config.path), ["`dataset.test_path` is required for scoring, but is missing."])
    return dataset


def _positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
    """Return the items that have features; DataError when some have none and that is not allowed, or when none has."""
    missing = dataset.without_features()
    positions = [index for index in range(len(dataset)) if index not in missing]
    if missing and not (allow_missing and positions):
        videos = list(dict.fromkeys(key if isinstance(key, str) else str(key[0]) for key in missing.values()))
        listed = ", ".join(videos[:MOST_LISTED]) + (", ..." if len(videos) > MOST_LISTED else "")
        raise DataError(
            f"{dataset.video.need_str('vfeat_dir')}: {len(missing)} of {len(dataset)} test items have no features "
            f"({len(videos)} videos: {listed}). Extract them"
            + (", or score the rest with --allow-missing." if positions else " or correct `dataset.vfeat_dir`.")
        )
    return positions


def _loader(dataset: Dataset, config: RunConfig, pin_memory: bool) -> DataLoader:
    return DataLoader(
        dataset, config.batch_size, collate_fn=collate, num_workers=config.num_workers, pin_memory=pin_memory
    )


def short_names(paths: list[Path]) -> list[str]:
    """Column titles: the checkpoint's folder where these differ, else the file's name, else the whole path."""
    for name in (lambda path: path.parent.name, lambda path: path.stem, str):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def report_path(config: RunConfig) -> Path:
    """Return where the report of a scoring goes."""
    return Path(config.eval.save_path or ".") / f"{config.name}-report.html"


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
    args = _parser().parse_args(argv)
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
    parser.add_argument("taskconfigs", nargs="+", metavar="YAML", help="evaluations, scored one after another")
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
