"""Checks of an evaluation before the first checkpoint is scored.

The first test item shows whether the parts of an evaluation (processors, aligner, predictor) fit
each other. The `config.yaml` of a training run shows whether its checkpoint fits the evaluation:
tensors of another size are an error when the weights are loaded, but another vocabulary of the same
size would only give bad scores.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmpt import evaluators
from mmpt.config import RunConfig, load_config
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError, DataError, UserError
from mmpt.inference.origin import find_other_features
from mmpt.models.mismatch import MAX_LISTED
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.tasks.checks import make_item, named_parts
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def positions_to_score(dataset: MMDataset, allow_missing: bool) -> list[int]:
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
    ids: dict[str, None] = {}  # a set that keeps its order
    for key in keys:
        video_id = key if isinstance(key, str) else str(key[0])
        ids[video_id] = None
    return list(ids)


def check_parts_fit(
    config: RunConfig,
    predictor: evaluators.Predictor[Any],
    dataset: MMDataset,
    position: int,
) -> None:
    """Makes one item of a test set and compares its tensors with those that the predictor reads.

    Raises:
        ConfigError: the classes under `dataset` do not fit each other or the predictor.
        DataError: the features or the text of the item are damaged.
    """
    item = make_item(config, dataset, position)
    wrong = []
    for name, num_axes in predictor.reads.items():
        found = "none"
        if name in item:
            found = f"{np.ndim(item[name])}-D"
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
    only the features are compared. A different `max_video_len` is only logged, because the
    published protocol trains Norton on 16 seconds and scores it on 32. Features of another encoder
    are a warning.

    Raises:
        ConfigError: the features have another rate, or the vocabularies of the two BERTs differ, so
            that the model would read the captions as other words.
    """
    ours = config.dataset
    if difference := find_other_features(checkpoint, ours):
        remedy = "Scores are meaningless if they differ; correct `dataset.vfeat_dir`."
        logger.warning("%s: %s. %s", checkpoint, difference, remedy)
    path = checkpoint.parent / "config.yaml"
    if not path.is_file():
        return
    try:
        trained = load_config(path).dataset
        same = _same_vocabulary(ours.bert_name, trained.bert_name)
    except UserError as err:
        logger.warning("%s cannot be compared with this evaluation: %s", path, err)
        return
    if trained.max_video_len != ours.max_video_len:
        logger.info(
            f"{path}: trained with `dataset.max_video_len` {trained.max_video_len}, scored with "
            f"{ours.max_video_len}, as in the published protocol (16 and 32)."
        )
    if trained.feature_fps != ours.feature_fps:
        problem = (
            f"`dataset.feature_fps` must be {trained.feature_fps:g}, with which {checkpoint} was "
            f"trained ({path}), but is {ours.feature_fps:g}. Score it on features of that rate."
        )
        raise ConfigError(config.path, [problem])
    if not same:
        other = trained.bert_name
        problem = (
            f"`dataset.bert_name` must have the same word pieces as `{other}`, with which "
            f"{checkpoint} was trained ({path}), but is `{ours.bert_name}`, whose word pieces "
            f"differ. Score it with `dataset.bert_name={other}`."
        )
        raise ConfigError(config.path, [problem])


def _same_vocabulary(bert: str | None, other: str | None) -> bool:
    """Returns True if two BERTs have the same word pieces, with the same numbers."""
    if bert == other:
        return True
    vocabulary = load_tokenizer(bert or "").get_vocab()
    other_vocabulary = load_tokenizer(other or "").get_vocab()
    return bool(vocabulary == other_vocabulary)
