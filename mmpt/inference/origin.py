"""Where a model is from: its checkpoint, the settings of its training, and its model card."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.config import RetrievalConfig, RunConfig, load_config
from mmpt.errors import ConfigError, DataError
from mmpt.shards.feature_info import read_feature_info
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

KEYS = ("task", "dataset", "model", "loss", *RetrievalConfig.model_fields)
"""Keys of a training YAML that are published."""
FAIRSEQ_GROUPS = ("dataset", "optimization")
"""Groups of fairseq's options that are published. The others describe the machine."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a model is from."""

    checkpoint: Path | None = None
    """The checkpoint. None: the model was not loaded from one."""
    training: dict[str, Any] | None = None
    """Settings of the training, without folders. None: unknown."""
    encoder: str | None = None
    """Name of the network that extracted the features. None: unknown."""
    card: str | None = None
    """The model card of the saved folder. None: there is none."""


def find_origin(config: RunConfig, checkpoint: Path) -> Origin:
    """Returns the origin of a model that is loaded from a checkpoint.

    Args:
        config: the YAML that the model is built from. If it is for an evaluation, the settings of
            the training are read from the `config.yaml` next to the checkpoint.
    """
    training = config
    yaml = checkpoint.parent / "config.yaml"
    if config.is_test and yaml.is_file():
        try:
            training = load_config(yaml, import_fairseq=False)
        except ConfigError as err:
            logger.warning("the settings of the training are not known: %s", err)
    if training.is_test:
        return Origin(checkpoint=checkpoint)
    return Origin(
        checkpoint=checkpoint,
        training=published_settings(training),
        encoder=_find_encoder(training),
    )


def published_settings(config: RunConfig) -> dict[str, Any]:
    """Returns the settings of a training that a model card shows.

    They contain no folders of this machine: only the last part of each path is kept.
    """
    settings = config.to_dict()
    published = _select(settings, KEYS)
    published["fairseq"] = _select(settings["fairseq"], FAIRSEQ_GROUPS)
    return _without_folders(published)


def _select(values: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Returns the entries with these names, in this order. Missing ones are left out."""
    return {name: values[name] for name in names if name in values}


def _without_folders(value: Any) -> Any:
    """Returns a copy of plain values in which paths are replaced by their last part."""
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    if isinstance(value, str):
        *_, last = re.split(r"[/\\]", value.rstrip("/\\"))
        return last
    return value


def _find_encoder(config: RunConfig) -> str | None:
    """Returns the name of the network that extracted the features of a training, if it is known."""
    folder = config.dataset.vfeat_dir
    if folder is None:
        return None
    try:
        info = read_feature_info(folder)
    except DataError:
        return None
    return None if info is None else info.encoder
