"""What the predictors of whole videos share: the windows of a video, and what they need of a model and an aligner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError
from mmpt.evaluators.base import Predictor
from mmpt.processors.window_aligner import Span, window_spans


def config_spans(config: DatasetConfig, num_seconds: int) -> list[Span]:
    """Return the windows of a video, as the aligner cut them."""
    assert config.sliding_window, "the aligner has looked"
    assert config.sliding_window_size, "the aligner has looked"
    return window_spans(num_seconds, config.sliding_window, config.sliding_window_size)


def need_entries(
    batch: Mapping[str, Any], names: tuple[str, ...], predictor: Predictor, wanted: str
) -> dict[str, Any]:
    """Return the entry of the only video of a batch for each of `names`.

    Args:
        wanted: name of an aligner that gives them.
    Raises:
        ConfigError: the aligner of the YAML gives no such entries.
    """
    if missing := [name for name in names if name not in batch]:
        problem = (
            f"`predictor: {type(predictor).__name__}` needs items with {', '.join(missing)}, which `aligner: {wanted}` "
            f"makes, but `dataset.aligner` is {predictor.config.aligner}."
        )
        raise ConfigError("dataset", [problem])
    return {name: batch[name][0] for name in names}


def need_logits(
    output: Mapping[str, torch.Tensor], predictor: Predictor, wanted: str
) -> torch.Tensor:
    """Return the logits of a model's output.

    Args:
        wanted: name of a model that gives them.
    Raises:
        ConfigError: the model of the YAML gives none.
    """
    if "logits" not in output:
        problem = (
            f"`predictor: {type(predictor).__name__}` needs a model that gives logits, such as {wanted}, but "
            f"`model.model_cls` gives {', '.join(output)}."
        )
        raise ConfigError("model", [problem])
    return output["logits"]
