"""Do the parts of an evaluation belong together, and the checkpoint to it? Asked before anything is
scored.

Of parts, the first item tells. Of a checkpoint, its training run's `config.yaml` beside it does:
sizes that differ are found when weights are loaded, but another vocabulary of the same size would
only give bad numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import ClipBatch
from mmpt.config import RunConfig
from mmpt.config.yaml_files import read_yaml
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError, DataError, UserError
from mmpt.evaluators import PREDICTORS
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

TRAINING_CONFIG = "config.yaml"


def make_item(config: RunConfig, dataset: MMDataset, position: int) -> ClipBatch:
    """Return one item of a data set.

    Raises:
        ConfigError: the parts under `dataset` cannot make it.
        DataError: its features or its text are damaged.
    """
    try:
        return dataset[position]
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        problem = (
            f"{_parts(config)} must belong together, but cannot "
            f"make an item ({type(err).__name__}: {err})."
        )
        raise ConfigError(config.path, [problem]) from err


def _parts(config: RunConfig) -> str:
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    return ", ".join(f"`{kind}: {getattr(config.dataset, kind)}`" for kind in kinds)


def check_parts_fit(config: RunConfig, dataset: MMDataset, position: int) -> None:
    """Make one item of a test set, and compare it with what the predictor reads.

    Raises:
        ConfigError: the parts under `dataset` cannot make it, or the predictor takes others.
        DataError: its features or its text are damaged.
    """
    item: dict[str, Any] = {**make_item(config, dataset, position)}
    reads = PREDICTORS.get(config.predictor or "", "predictor").reads
    found = {name: np.ndim(value) for name, value in item.items() if name in reads}
    if wrong := [
        f"a {axes}-D `{name}` (found: {f'{found[name]}-D' if name in found else 'none'})"
        for name, axes in reads.items()
        if found.get(name) != axes
    ]:
        problem = (
            f"`predictor: {config.predictor}` needs items with {', '.join(wrong)}, which "
            f"{_parts(config)} do not make. Take all five from one of the shipped YAMLs."
        )
        raise ConfigError(config.path, [problem])


def check_checkpoint_fits(config: RunConfig, checkpoint: Path) -> None:
    """Compare an evaluation with the training run that made a checkpoint, if its `config.yaml` is
    in the same folder.

    Another `max_video_len` is only told: the published protocol trains Norton on 16 seconds and
    scores it on 32.

    Raises:
        ConfigError: the word pieces of the two BERTs differ, so that captions would be read as
            other words.
    """
    path = checkpoint.parent / TRAINING_CONFIG
    if not path.is_file():
        return
    trained = _dataset_section(path)
    _tell_lengths(config, trained, path)
    bert, other = config.dataset.bert_name, trained.get("bert_name")
    if bert is None or not isinstance(other, str) or other == bert:
        return
    try:
        same = load_tokenizer(bert).get_vocab() == load_tokenizer(other).get_vocab()
    except DataError as err:
        logger.warning(
            "%s was trained with the BERT `%s`, which cannot be compared: %s",
            checkpoint,
            other,
            err,
        )
        return
    if not same:
        problem = (
            f"`dataset.bert_name` must have the word pieces that {checkpoint} was trained with, "
            f"those of `{other}` ({path}), but is `{bert}`, whose word pieces differ. Score it "
            f"with `dataset.bert_name={other}`."
        )
        raise ConfigError(config.path, [problem])


def _dataset_section(path: Path) -> dict[str, Any]:
    """Return `dataset` of a YAML; an empty mapping, and a warning, for what is none of ours."""
    try:
        dataset = read_yaml(path).get("dataset")
    except ConfigError as err:
        logger.warning("%s cannot be compared with this evaluation: %s", path, err)
        return {}
    return dataset if isinstance(dataset, dict) else {}


def _tell_lengths(config: RunConfig, trained: dict[str, Any], path: Path) -> None:
    ours, theirs = config.dataset.max_video_len, trained.get("max_video_len")
    if isinstance(theirs, int) and ours is not None and theirs != ours:
        logger.info(
            "%s: trained with `dataset.max_video_len` %d, scored with %d. The video's [SEP] is "
            "then at position %d instead of %d; the published protocol does so (16 and 32).",
            path,
            theirs,
            ours,
            ours + 1,
            theirs + 1,
        )
