"""Scoring of checkpoints on a test set: which ones, on which items, the rows that are kept, and
what reports need.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from mmpt.batch import Split
from mmpt.cli.compatibility import check_checkpoint_fits, check_parts_fit
from mmpt.config import RunConfig
from mmpt.datasets import MMDataset, collate
from mmpt.errors import ConfigError, DataError
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    Evaluator,
    FingerprintingLoader,
    Outputs,
    check_results,
    file_fingerprint,
    save_predictions,
    write_results,
)
from mmpt.evaluators.table import first_distinct
from mmpt.models.checkpoint import MOST_LISTED, check_checkpoint, load_weights
from mmpt.reporting import KeyFrames, Run
from mmpt.tasks import Task
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
    """The checkpoints that the YAML names; with `all_checkpoints` those of `selection_rule`, as
    released.
    """
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(_search_folder(config).glob("checkpoint*.pt")) if all_checkpoints else []
    paths: list[Path] = []
    for path in [*found, *named]:
        if path.resolve() not in [known.resolve() for known in paths]:
            paths.append(path)
    if not paths:
        key = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(str(config.path), [key])
    return paths


def selection_rule(config: RunConfig) -> str:
    """Say what `--all-checkpoints` scores and how the best is chosen."""
    return (
        f"every checkpoint*.pt in {_search_folder(config)} (the folder above `eval.save_path`) in "
        "order of name, then those that `fairseq.common_eval.path` names; the best is chosen on "
        "this test set itself, as in the release"
    )


def _search_folder(config: RunConfig) -> Path:
    # Of `runs/x/`, unlike Path.parent, this is runs/x.
    return Path(os.path.dirname(config.eval.save_path or ""))


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
    """Score every checkpoint, write `<eval.save_path>/results.json`, and return what tables and
    reports need.

    Args:
        all_checkpoints: also score what `selection_rule` says.
        keep_predictions: write what each checkpoint predicts beside the results.
        allow_missing: score the videos that have features when some have none.
        keep_results: write the rows; False: only return them.
        videos: folder of the test set's videos, for key frames in a report.
    Raises:
        UserError: a missing or unfit checkpoint, annotation or feature file.
    """
    _require_evaluation(config)
    frames = KeyFrames(videos)
    task = Task.from_config(config, seed=config.seed)
    evaluator = Evaluator(
        PREDICTORS.get(config.predictor or "", "predictor")(config.dataset),
        [METRICS.get(name, "metric")() for name in config.metric],
    )
    paths = checkpoints_to_score(config, all_checkpoints)
    for path in paths:  # all before the first is scored
        check_checkpoint(path)
        check_checkpoint_fits(config, path)
    results = Path(config.eval.save_path or ".")
    if keep_results:
        check_results(results / "results.json")
    dataset, positions = _test_set(task, allow_missing)
    loader = FingerprintingLoader(
        _loader(Subset(dataset, positions), config, pin_memory=device.type == "cuda")
    )
    best_place, rows, best = _score_all(
        task, paths, evaluator, loader, device, results if keep_predictions else None
    )
    rows = [
        row | {"num_items": len(positions), "num_missing": len(dataset) - len(positions)}
        for row in rows
    ]
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
    """Evaluate every checkpoint; return the place of the best one, all rows, and the best, the
    first of equal ones.

    Args:
        predictions: folder to keep what each one predicts in, if anywhere.
    """
    rows: list[dict[str, Any]] = []
    names = prediction_names(task.config.name, paths)
    best: tuple[int, Scored] | None = None
    for place, path in enumerate(paths):
        scored = _score(task, path, evaluator, loader, device)
        rows.append(scored.row)
        if predictions is not None:
            save_predictions(predictions / f"{names[place]}.npz", scored.outputs)
        if best is None or scored.value > best[1].value:
            best = place, scored
    assert best is not None, "checkpoints_to_score returns one at least"
    return best[0], rows, best[1]


def _score(
    task: Task, path: Path, evaluator: Evaluator, loader: FingerprintingLoader, device: torch.device
) -> Scored:
    """Evaluate one checkpoint."""
    model = task.build_model(pretrained=False)
    load_weights(model, path)
    model.to(device)
    begin = time.monotonic()
    outputs, metrics = evaluator(model, loader, device)
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


def _require_evaluation(config: RunConfig) -> None:
    if not config.is_test:
        problem = "a training config cannot be scored; take one with `dataset.split: test`."
        raise ConfigError(str(config.path), [problem])


def _test_set(task: Task, allow_missing: bool) -> tuple[MMDataset, list[int]]:
    """Return the test set, of parts that fit each other, and which of its items to score."""
    dataset = task.build_dataset(Split.TEST)
    if dataset is None:
        raise ConfigError(
            str(task.config.path), ["`dataset.test_path` is required for scoring, but is missing."]
        )
    positions = _positions_to_score(dataset, allow_missing)
    check_parts_fit(task.config, dataset, positions[0])
    return dataset, positions


def _positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
    """Return the items that have features; DataError when some have none and that is not allowed,
    or when none has.
    """
    missing = dataset.without_features()
    positions = [index for index in range(len(dataset)) if index not in missing]
    if missing and not (allow_missing and positions):
        videos = list(
            dict.fromkeys(key if isinstance(key, str) else str(key[0]) for key in missing.values())
        )
        listed = ", ".join(videos[:MOST_LISTED]) + (", ..." if len(videos) > MOST_LISTED else "")
        raise DataError(
            f"{dataset.video.need_str('vfeat_dir')}: {len(missing)} of {len(dataset)} test items "
            f"have no features ({len(videos)} videos: {listed}). Extract them"
            + (
                ", or score the rest with --allow-missing."
                if positions
                else " or correct `dataset.vfeat_dir`."
            )
        )
    return positions


def _loader(dataset: Dataset[Any], config: RunConfig, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        config.batch_size,
        collate_fn=collate,
        num_workers=config.num_workers,
        pin_memory=pin_memory,
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """Column titles: the checkpoint's folder where these differ, else the file's name, else the
    whole path.
    """
    return first_distinct(
        [path.parent.name for path in paths], [path.stem for path in paths], list(map(str, paths))
    )


def prediction_names(task: str, paths: Sequence[Path]) -> list[str]:
    """Return what to call the predictions of checkpoints on a task; several tasks may share a
    folder.
    """
    short = [f"{path.parent.name}-{path.stem}" for path in paths]
    whole = ["-".join(path.resolve().with_suffix("").parts[1:]) for path in paths]
    return [f"{task}-{name}" for name in first_distinct(short, whole)]


def report_path(config: RunConfig) -> Path:
    """Return where the report of a scoring goes."""
    return Path(config.eval.save_path or ".") / f"{config.name}-report.html"
