"""Scores checkpoints on a test set. Used by `mmpt predict` and `mmpt report`.

Everything that can be wrong is checked before the first checkpoint is scored. The first test item
shows whether the parts of an evaluation (processors, aligner, predictor) fit each other. The
`config.yaml` of a training run shows whether its checkpoint fits the evaluation: tensors of another
size are an error when the weights are loaded, but another vocabulary of the same size would only
give bad scores.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from mmpt import evaluators
from mmpt.batch import Split
from mmpt.config import RunConfig, load_config
from mmpt.datasets import MMDataset, collate
from mmpt.errors import ConfigError, DataError, UserError
from mmpt.evaluators.table import checkpoint_names
from mmpt.models.checkpoint import check_checkpoint, load_weights
from mmpt.models.mismatch import MAX_LISTED
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.reporting import KeyFrames, Run
from mmpt.tasks import Task
from mmpt.tasks.checks import make_item, named_parts
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

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
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(_search_folder(config).glob("checkpoint*.pt")) if all_checkpoints else []
    paths: dict[Path, Path] = {}  # resolved path -> path as it was written first
    for path in [*found, *named]:
        paths.setdefault(path.resolve(), path)
    if not paths:
        problem = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(config.path, [problem])
    return list(paths.values())


def selection_rule(config: RunConfig) -> str:
    """Returns a sentence on which checkpoints `--all-checkpoints` scores and how it chooses."""
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
        names = ["-".join(path.resolve().with_suffix("").parts[1:]) for path in paths]
    return [f"{task}-{name}" for name in names]


# ---- scoring


@dataclass(frozen=True)
class _Scored:
    """The result of scoring one checkpoint."""

    row: dict[str, Any]
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
) -> Run:
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
        problem = "a training config cannot be scored; take one with `dataset.split: test`."
        raise ConfigError(config.path, [problem])
    # Find mistakes before the first checkpoint is scored, which may take hours.
    frames = KeyFrames(videos)
    task = Task.from_config(config, seed=config.option("common", "seed", 1))
    evaluator = _build_evaluator(config)
    paths = checkpoints_to_score(config, all_checkpoints)
    for path in paths:
        check_checkpoint(path)
        check_checkpoint_fits(config, path)
    results = results_folder(config) / "results.json"
    if keep_results:
        evaluators.check_results(results)
    dataset = task.build_dataset(Split.TEST)
    assert dataset is not None, "an evaluation config has a test split"
    positions = _positions_to_score(dataset, allow_missing)
    check_parts_fit(config, evaluator.predictor, dataset, positions[0])

    loader = _build_loader(config, dataset, positions, device)
    counts = {"num_items": len(positions), "num_missing": len(dataset) - len(positions)}
    rows: list[dict[str, Any]] = []
    best: tuple[int, _Scored] | None = None
    for path, name in zip(paths, prediction_names(config.name, paths), strict=True):
        scored = _score(task, path, evaluator, loader, device)
        # Only the best model and its predictions are kept. Among equals, the first is the best.
        if best is None or scored.value > best[1].value:
            best = len(rows), scored
        rows.append(scored.row | counts)
        if keep_predictions:
            evaluators.save_predictions(results.parent / f"{name}.npz", scored.outputs)
    assert best is not None, "checkpoints_to_score returns at least one"
    best_place, best_scored = best
    chance = evaluator.chance(best_scored.outputs)
    if keep_results:
        evaluators.write_results(results, rows, settings=config.to_dict(), chance=chance)
    return Run(
        config=config,
        rows=rows,
        names=checkpoint_names(paths),
        chance=chance,
        best=best_place,
        best_value=best_scored.value,
        outputs=best_scored.outputs,
        model=best_scored.model,
        dataset=dataset,
        positions=positions,
        frames=frames,
    )


def _build_evaluator(config: RunConfig) -> evaluators.Evaluator:
    """Returns the evaluator with the predictor and the metrics that the YAML names."""
    predictor_class = evaluators.PREDICTORS.get(config.predictor or "", "predictor")
    metrics = [evaluators.METRICS.get(name, "metric")() for name in config.metric]
    return evaluators.Evaluator(predictor_class(config.dataset), metrics)


def _build_loader(
    config: RunConfig, dataset: MMDataset, positions: Sequence[int], device: torch.device
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
    task: Task,
    path: Path,
    evaluator: evaluators.Evaluator,
    loader: evaluators.FingerprintingLoader,
    device: torch.device,
) -> _Scored:
    """Loads one checkpoint, runs it on the test set, and computes all metrics."""
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
        "fingerprint": file_hash(path),
        "data_fingerprint": loader.fingerprint(),
        "metrics": metrics,
        "seconds": round(seconds, 2),
    }
    return _Scored(row, evaluator.best(metrics), outputs, model)


# ---- checks before scoring


def _positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
    """Returns the positions of the test items that have features.

    Raises:
        DataError: no item has features, or some have none and `allow_missing` is False.
    """
    missing = dataset.without_features()
    positions = [index for index in range(len(dataset)) if index not in missing]
    if missing and not (allow_missing and positions):
        videos = _video_ids(missing.values())
        listed = ", ".join(videos[:MAX_LISTED])
        if len(videos) > MAX_LISTED:
            listed += ", ..."
        raise DataError(
            f"{dataset.video.need_str('vfeat_dir')}: {len(missing)} of {len(dataset)} test items "
            f"have no features ({len(videos)} videos: {listed}). Extract them, correct "
            "`dataset.vfeat_dir`, or score the rest with --allow-missing."
        )
    return positions


def _video_ids(keys: Iterable[Any]) -> list[str]:
    """Returns the different video ids in keys of test items, in order.

    A key is a video id, or a tuple that begins with one.
    """
    ids = [key if isinstance(key, str) else str(key[0]) for key in keys]
    return list(dict.fromkeys(ids))


def check_parts_fit(
    config: RunConfig, predictor: evaluators.Predictor[Any], dataset: MMDataset, position: int
) -> None:
    """Makes one item of a test set and compares its tensors with those that the predictor reads.

    Raises:
        ConfigError: the classes under `dataset` do not fit each other or the predictor.
        DataError: the features or the text of the item are damaged.
    """
    item = make_item(config, dataset, position)
    wrong = []
    for name, num_axes in predictor.reads.items():
        found = f"{np.ndim(item[name])}-D" if name in item else "none"
        if found != f"{num_axes}-D":
            wrong.append(f"a {num_axes}-D `{name}` (found: {found})")
    if wrong:
        problem = (
            f"`predictor: {config.predictor}` needs items with {', '.join(wrong)}, which "
            f"{named_parts(config)} do not make. Take all five from one of the shipped YAMLs."
        )
        raise ConfigError(config.path, [problem])


def check_checkpoint_fits(config: RunConfig, checkpoint: Path) -> None:
    """Compares an evaluation with the training run of a checkpoint.

    The training run is described by the `config.yaml` next to the checkpoint. Without this file,
    nothing is compared. A different `max_video_len` is only logged, because the published protocol
    trains Norton on 16 seconds and scores it on 32.

    Raises:
        ConfigError: the vocabularies of the two BERTs differ, so that the model would read the
            captions as other words.
    """
    path = checkpoint.parent / "config.yaml"
    if not path.is_file():
        return
    ours, bert = config.dataset, config.dataset.bert_name
    try:
        trained = load_config(path).dataset
        other = trained.bert_name
        same = bert == other or (
            load_tokenizer(bert or "").get_vocab() == load_tokenizer(other or "").get_vocab()
        )
    except UserError as err:
        logger.warning("%s cannot be compared with this evaluation: %s", path, err)
        return
    if trained.max_video_len != ours.max_video_len:
        logger.info(
            f"{path}: trained with `dataset.max_video_len` {trained.max_video_len}, scored with "
            f"{ours.max_video_len}, as in the published protocol (16 and 32)."
        )
    if not same:
        problem = (
            f"`dataset.bert_name` must have the same word pieces as `{other}`, with which "
            f"{checkpoint} was trained ({path}), but is `{bert}`, whose word pieces differ. Score "
            f"it with `dataset.bert_name={other}`."
        )
        raise ConfigError(config.path, [problem])
