"""Scores checkpoints on a test set. Used by `mmpt predict` and `mmpt report`.

Everything that can be wrong is checked before the first checkpoint is scored.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from mmpt import evaluators
from mmpt.batch import Split
from mmpt.cli.scoring_checks import (
    check_checkpoint_fits,
    check_parts_fit,
    positions_to_score,
)
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset, collate
from mmpt.errors import ConfigError
from mmpt.evaluators.table import checkpoint_names
from mmpt.models.checkpoint import check_checkpoint, load_weights
from mmpt.reporting import EvaluationRun, KeyFrames
from mmpt.tasks import Task
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

Row = dict[str, Any]
"""A row of results.json."""
logger = get_logger(__name__)


# ---- which checkpoints, and where the results go


def checkpoints_to_score(config: RunConfig, all_checkpoints: bool) -> list[Path]:
    """Returns the checkpoints that the YAML names, each once.

    Args:
        all_checkpoints: also return every checkpoint that `selection_rule` describes, first and
            in order of name, as the release does.
    Raises:
        ConfigError: there is none.
    """
    candidates: list[Path] = []
    if all_checkpoints:
        candidates += sorted(_search_folder(config).glob("checkpoint*.pt"))
    candidates += [Path(path) for path in config.checkpoint_paths]
    paths: dict[Path, Path] = {}  # resolved path -> path as it was written first
    for path in candidates:
        paths.setdefault(path.resolve(), path)
    if not paths:
        problem = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(config.path, [problem])
    return list(paths.values())


def selection_rule(config: RunConfig) -> str:
    """Returns a sentence about the checkpoints that `--all-checkpoints` scores and chooses from."""
    return (
        f"scored every checkpoint*.pt in {_search_folder(config)} (the folder above "
        "`eval.save_path`) in order of name, then those that `fairseq.common_eval.path` names; the "
        "best is chosen on this test set itself, as in the release"
    )


def _search_folder(config: RunConfig) -> Path:
    """Returns the folder above `eval.save_path`."""
    # For `runs/x/`, os.path.dirname gives runs/x as in the release; Path.parent would give runs.
    return Path(os.path.dirname(config.eval.save_path or ""))


def results_folder(config: RunConfig) -> Path:
    """Returns the folder for the results of an evaluation."""
    return Path(config.eval.save_path or "")


def report_path(config: RunConfig) -> Path:
    """Returns the path for the HTML report of an evaluation."""
    return results_folder(config) / f"{config.name}-report.html"


def prediction_names(task: str, paths: Sequence[Path]) -> list[str]:
    """Returns the file names, without suffix, for the predictions of checkpoints.

    The name of the task is part of them, because evaluations may share a folder.
    """
    names = [f"{path.parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        # Two runs have folders of the same name, so the whole paths are needed.
        names = []
        for path in paths:
            _root, *parts = path.resolve().with_suffix("").parts
            names.append("-".join(parts))
    return [f"{task}-{name}" for name in names]


# ---- checks before scoring


@dataclass(frozen=True)
class _Evaluation:
    """The parts of an evaluation, in which no mistakes were found."""

    task: Task
    evaluator: evaluators.Evaluator
    paths: Sequence[Path]
    """The checkpoints."""
    dataset: MMDataset
    """The test set."""
    positions: Sequence[int]
    """Positions of the test items to score."""


def _check_evaluation(
    config: RunConfig, all_checkpoints: bool, allow_missing: bool
) -> _Evaluation:
    """Builds and checks the parts of an evaluation, so that no mistake is found only after hours.

    Arguments and errors: as for `predict`.
    """
    task = Task.from_config(config, seed=config.option("common", "seed", 1))
    evaluator = _build_evaluator(config)
    paths = checkpoints_to_score(config, all_checkpoints)
    for path in paths:
        check_checkpoint(path)
        check_checkpoint_fits(config, path)
    dataset = task.build_dataset(Split.TEST)
    assert dataset is not None, "an evaluation config has a test split"
    positions = positions_to_score(dataset, allow_missing)
    check_parts_fit(config, evaluator.predictor, dataset, positions[0])
    return _Evaluation(task, evaluator, paths, dataset, positions)


# ---- scoring


@dataclass(frozen=True)
class _Scored:
    """The result of scoring one checkpoint."""

    row: Row
    """The row for results.json."""
    value: float
    """The number by which checkpoints are compared; greater is better."""
    outputs: evaluators.Outputs
    model: nn.Module


def predict(
    config: RunConfig,
    *,
    device: torch.device,
    all_checkpoints: bool = False,
    keep_predictions: bool = False,
    allow_missing: bool = False,
    keep_results: bool = True,
    videos: str | None = None,
) -> EvaluationRun:
    """Scores the checkpoints of an evaluation and writes `<eval.save_path>/results.json`.

    Args:
        device: the device of the models.
        all_checkpoints: also score the checkpoints that `selection_rule` describes.
        keep_predictions: write the predictions of each checkpoint next to the results.
        allow_missing: leave out test items without features. They are an error by default.
        keep_results: write the results file. If False, the rows are only returned.
        videos: folder of the test videos, for key frames in a report.

    Returns:
        All rows, and the predictions and the model of the best checkpoint, for tables and reports.

    Raises:
        UserError: a checkpoint, annotation or feature file is missing or does not fit.
    """
    if not config.is_test:
        problem = (
            "a training config cannot be scored; take one with `dataset.split: test`."
        )
        raise ConfigError(config.path, [problem])
    frames = KeyFrames(videos)
    results = results_folder(config) / "results.json"
    if keep_results:
        evaluators.check_results(results)
    checked = _check_evaluation(config, all_checkpoints, allow_missing)
    loader = _build_loader(config, checked.dataset, checked.positions, device)
    names = prediction_names(config.name, checked.paths) if keep_predictions else []
    rows: list[Row] = []
    best: _Scored | None = None
    best_place = 0
    for place, path in enumerate(checked.paths):
        scored = _score(checked, path, loader, device)
        rows.append(scored.row)
        if names:
            evaluators.save_predictions(
                results.parent / f"{names[place]}.npz", scored.outputs
            )
        # Only the best model and its predictions are kept. Among equals, the first is the best.
        if best is None or scored.value > best.value:
            best, best_place = scored, place
    assert best is not None, "checkpoints_to_score returns at least one"
    chance = checked.evaluator.chance(best.outputs)
    if keep_results:
        evaluators.write_results(
            results, rows, settings=config.to_dict(), chance=chance
        )
    return EvaluationRun(
        config=config,
        rows=rows,
        names=checkpoint_names(checked.paths),
        chance=chance,
        best=best_place,
        best_value=best.value,
        outputs=best.outputs,
        model=best.model,
        dataset=checked.dataset,
        positions=checked.positions,
        frames=frames,
    )


def _build_evaluator(config: RunConfig) -> evaluators.Evaluator:
    """Returns the evaluator with the predictor and the metrics that the YAML names."""
    predictor_class = evaluators.PREDICTORS.get(config.predictor or "", "predictor")
    metrics = [evaluators.METRICS.get(name, "metric")() for name in config.metric]
    return evaluators.Evaluator(predictor_class(config.dataset), metrics)


def _build_loader(
    config: RunConfig,
    dataset: MMDataset,
    positions: Sequence[int],
    device: torch.device,
) -> evaluators.FingerprintingLoader:
    """Returns a loader of the items at `positions`, which also hashes them."""
    batches = DataLoader(
        Subset(dataset, positions),
        config.batch_size,
        collate_fn=collate,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    )
    return evaluators.FingerprintingLoader(batches)


def _score(
    checked: _Evaluation,
    path: Path,
    loader: evaluators.FingerprintingLoader,
    device: torch.device,
) -> _Scored:
    """Loads one checkpoint, runs it on the test set, and computes all metrics."""
    model = checked.task.build_model(pretrained=False)
    load_weights(model, path)
    model.to(device)
    begin = time.monotonic()
    outputs, metrics = checked.evaluator(model, loader, device)
    seconds = time.monotonic() - begin
    logger.info("%s scored in %.1f s", path, seconds)
    num_items = len(checked.positions)
    row = {
        "task": checked.task.config.name,
        "checkpoint": str(path),
        "fingerprint": file_hash(path),
        "data_fingerprint": loader.fingerprint(),
        "metrics": metrics,
        "seconds": round(seconds, 2),
        "num_items": num_items,
        "num_missing": len(checked.dataset) - num_items,
    }
    return _Scored(row, checked.evaluator.best(metrics), outputs, model)
