"""Do the parts of an evaluation belong together, and the checkpoint to it? Asked before anything is
scored.

Of parts, the first item tells. Of a checkpoint, its training run's `config.yaml` beside it does:
sizes that differ are found when weights are loaded, but another vocabulary of the same size would
only give bad numbers.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mmpt.config import RunConfig
from mmpt.config.yaml_files import read_yaml
from mmpt.datasets import MMDataset
from mmpt.errors import ConfigError, DataError, UserError
from mmpt.evaluators import PREDICTORS
from mmpt.processors.tokenizer import load_tokenizer
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def make_item(config: RunConfig, dataset: MMDataset, position: int) -> dict[str, Any]:
    """Returns one item of a data set.

    Raises:
        ConfigError: the parts under `dataset` cannot make it.
        DataError: its features or its text are damaged.
    """
    try:
        return {**dataset[position]}
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        problem = (
            f"{_parts(config)} must belong together, but cannot make an item "
            f"({type(err).__name__}: {err})."
        )
        raise ConfigError(config.path, [problem]) from err


def _parts(config: RunConfig) -> str:
    kinds = ("meta_processor", "video_processor", "text_processor", "aligner")
    return ", ".join(f"`{kind}: {getattr(config.dataset, kind)}`" for kind in kinds)


def check_parts_fit(config: RunConfig, dataset: MMDataset, position: int) -> None:
    """Makes one item of a test set, and compares it with what the predictor reads.

    Raises:
        ConfigError: the parts under `dataset` cannot make it, or the predictor takes others.
        DataError: its features or its text are damaged.
    """
    item = make_item(config, dataset, position)
    wrong = []
    for name, axes in PREDICTORS.get(config.predictor or "", "predictor").reads.items():
        found = f"{np.ndim(item[name])}-D" if name in item else "none"
        if found != f"{axes}-D":
            wrong.append(f"a {axes}-D `{name}` (found: {found})")
    if wrong:
        problem = (
            f"`predictor: {config.predictor}` needs items with {', '.join(wrong)}, which "
            f"{_parts(config)} do not make. Take all five from one of the shipped YAMLs."
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
    try:
        trained = read_yaml(path).get("dataset") if path.is_file() else None
    except ConfigError as err:
        logger.warning("%s cannot be compared with this evaluation: %s", path, err)
        return
    if not isinstance(trained, dict):
        return
    ours, theirs = config.dataset.max_video_len, trained.get("max_video_len")
    if isinstance(theirs, int) and ours is not None and theirs != ours:
        logger.info(
            f"{path}: trained with `dataset.max_video_len` {theirs}, scored with {ours}. The "
            f"video's [SEP] is then at position {ours + 1} instead of {theirs + 1}; the published "
            "protocol does so (16 and 32)."
        )
    bert, other = config.dataset.bert_name, trained.get("bert_name")
    if bert is None or not isinstance(other, str) or other == bert:
        return
    try:
        same = load_tokenizer(bert).get_vocab() == load_tokenizer(other).get_vocab()
    except DataError as err:
        logger.warning(
            f"{checkpoint} was trained with the BERT `{other}`, which cannot be compared: {err}"
        )
        return
    if not same:
        problem = (
            f"`dataset.bert_name` must have the word pieces that {checkpoint} was trained with, "
            f"those of `{other}` ({path}), but is `{bert}`, whose word pieces differ. Score it "
            f"with `dataset.bert_name={other}`."
        )
        raise ConfigError(config.path, [problem])
