"""Scoring of checkpoints on a test set: which ones, on which items, the rows that are kept, and
what reports need.

Before anything is scored, the first item shows whether the parts of the evaluation belong together,
and the `config.yaml` of its training run whether a checkpoint belongs to it. Sizes that differ are
found when weights are loaded, but another vocabulary of the same size would only give bad numbers.
"""

import os
import time
from collections.abc import Sequence
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
from mmpt.models.checkpoint import MAX_LISTED, check_checkpoint, load_weights
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.reporting import KeyFrames, Run
from mmpt.tasks import Task
from mmpt.tasks.checks import make_item, named_parts
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def checkpoints_to_score(config: RunConfig, all_checkpoints: bool) -> list[Path]:
    """Returns the checkpoints that the YAML names; with `all_checkpoints` those of
    `selection_rule`, as released.
    """
    named = [Path(path) for path in config.checkpoint_paths]
    found = sorted(_search_folder(config).glob("checkpoint*.pt")) if all_checkpoints else []
    paths: dict[Path, Path] = {}  # the whole path -> the path as it is written first
    for path in [*found, *named]:
        paths.setdefault(path.resolve(), path)
    if not paths:
        problem = "`fairseq.common_eval.path` must name the checkpoint to score, but is missing."
        raise ConfigError(config.path, [problem])
    return list(paths.values())


def selection_rule(config: RunConfig) -> str:
    """Returns what `--all-checkpoints` scores and how the best is chosen."""
    return (
        f"scored every checkpoint*.pt in {_search_folder(config)} (the folder above "
        "`eval.save_path`) in order of name, then those that `fairseq.common_eval.path` names; the "
        "best is chosen on this test set itself, as in the release"
    )


def _search_folder(config: RunConfig) -> Path:
    # Of `runs/x/`, unlike Path.parent, this is runs/x.
    return Path(os.path.dirname(config.eval.save_path or ""))


def results_folder(config: RunConfig) -> Path:
    """Returns where the results of a scoring go."""
    return Path(config.eval.save_path or "")


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
    """Scores every checkpoint, writes `<eval.save_path>/results.json`, and returns what tables and
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
    if not config.is_test:
        problem = "a training config cannot be scored; take one with `dataset.split: test`."
        raise ConfigError(config.path, [problem])
    # All that can be found wrong is found before the first checkpoint is scored.
    frames = KeyFrames(videos)
    task = Task.from_config(config, seed=config.option("common", "seed", 1))
    evaluator = evaluators.Evaluator(
        evaluators.PREDICTORS.get(config.predictor or "", "predictor")(config.dataset),
        [evaluators.METRICS.get(name, "metric")() for name in config.metric],
    )
    paths = checkpoints_to_score(config, all_checkpoints)
    for path in paths:
        check_checkpoint(path)
        check_checkpoint_fits(config, path)
    results = results_folder(config) / "results.json"
    if keep_results:
        evaluators.check_results(results)
    dataset = task.build_dataset(Split.TEST)
    if dataset is None:
        problem = "`dataset.test_path` is required for scoring, but is missing."
        raise ConfigError(config.path, [problem])
    positions = _positions_to_score(dataset, allow_missing)
    check_parts_fit(config, evaluator.predictor, dataset, positions[0])

    batches = DataLoader(
        Subset(dataset, positions),
        config.batch_size,
        collate_fn=collate,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    )
    loader = evaluators.FingerprintingLoader(batches)
    counts = {"num_items": len(positions), "num_missing": len(dataset) - len(positions)}
    rows: list[dict[str, Any]] = []
    best: tuple[float, int, evaluators.Outputs, nn.Module] | None = None
    for path, name in zip(paths, prediction_names(config.name, paths), strict=True):
        row, outputs, model = _score(task, path, evaluator, loader, device)
        value = evaluator.best(row["metrics"])
        if best is None or value > best[0]:  # of equal ones the first is best
            best = value, len(rows), outputs, model
        rows.append(row | counts)
        if keep_predictions:
            evaluators.save_predictions(results.parent / f"{name}.npz", outputs)
    assert best is not None, "checkpoints_to_score returns one at least"
    best_value, best_place, outputs, model = best
    chance = evaluator.chance(outputs)
    if keep_results:
        evaluators.write_results(results, rows, settings=config.to_dict(), chance=chance)
    return Run(
        config=config,
        rows=rows,
        names=checkpoint_names(paths),
        chance=chance,
        best=best_place,
        best_value=best_value,
        outputs=outputs,
        model=model,
        dataset=dataset,
        positions=positions,
        frames=frames,
    )


def _score(
    task: Task,
    path: Path,
    evaluator: evaluators.Evaluator,
    loader: evaluators.FingerprintingLoader,
    device: torch.device,
) -> tuple[dict[str, Any], evaluators.Outputs, nn.Module]:
    """Returns the row of one checkpoint, what it predicts, and its model."""
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
    return row, outputs, model


def _positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
    """Returns the items that have features; DataError when some have none and that is not allowed,
    or when none has.
    """
    missing = dataset.without_features()
    positions = [index for index in range(len(dataset)) if index not in missing]
    if missing and not (allow_missing and positions):
        keys = (key if isinstance(key, str) else str(key[0]) for key in missing.values())
        videos = list(dict.fromkeys(keys))
        listed = ", ".join(videos[:MAX_LISTED]) + (", ..." if len(videos) > MAX_LISTED else "")
        raise DataError(
            f"{dataset.video.need_str('vfeat_dir')}: {len(missing)} of {len(dataset)} test items "
            f"have no features ({len(videos)} videos: {listed}). Extract them, correct "
            "`dataset.vfeat_dir`, or score the rest with --allow-missing."
        )
    return positions


def prediction_names(task: str, paths: Sequence[Path]) -> list[str]:
    """Returns what to call the predictions of checkpoints on a task; several tasks may share a
    folder.
    """
    names = [f"{path.parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = ["-".join(path.resolve().with_suffix("").parts[1:]) for path in paths]
    return [f"{task}-{name}" for name in names]


def report_path(config: RunConfig) -> Path:
    """Returns where the report of a scoring goes."""
    return results_folder(config) / f"{config.name}-report.html"


def check_parts_fit(
    config: RunConfig, predictor: evaluators.Predictor[Any], dataset: MMDataset, position: int
) -> None:
    """Makes one item of a test set, and compares it with what the predictor reads.

    Raises:
        ConfigError: the parts under `dataset` cannot make it, or the predictor takes others.
        DataError: its features or its text are damaged.
    """
    item = make_item(config, dataset, position)
    wrong = []
    for name, axes in predictor.reads.items():
        found = f"{np.ndim(item[name])}-D" if name in item else "none"
        if found != f"{axes}-D":
            wrong.append(f"a {axes}-D `{name}` (found: {found})")
    if wrong:
        problem = (
            f"`predictor: {config.predictor}` needs items with {', '.join(wrong)}, which "
            f"{named_parts(config)} do not make. Take all five from one of the shipped YAMLs."
        )
        raise ConfigError(config.path, [problem])


def check_checkpoint_fits(config: RunConfig, checkpoint: Path) -> None:
    """Compares an evaluation with the training run that made a checkpoint, if its `config.yaml` is
    in the same folder.

    Another `max_video_len` is only logged: the published protocol trains Norton on 16 seconds and
    scores it on 32.

    Raises:
        ConfigError: the word pieces of the two BERTs differ, so that captions would be read as
            other words.
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
            f"`dataset.bert_name` must have the word pieces that {checkpoint} was trained with, "
            f"those of `{other}` ({path}), but is `{bert}`, whose word pieces differ. Score it "
            f"with `dataset.bert_name={other}`."
        )
        raise ConfigError(config.path, [problem])
