"""Helpers of predictors: eval mode, model inputs, windows of a video, and a check for NaN."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mmpt.config.schema import DatasetConfig
from mmpt.errors import CheckpointError
from mmpt.processors.window_aligner import Span, window_spans


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches to eval mode without gradients, and restores the model's mode."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def model_inputs(
    batch: Mapping[str, Any], model: nn.Module, device: torch.device
) -> dict[str, torch.Tensor]:
    """Returns caps, cmasks, vfeats and vmasks on `device`, features in the model's dtype."""
    dtype = next((weight.dtype for weight in model.parameters()), torch.float32)
    inputs = {name: batch[name].to(device) for name in ("caps", "cmasks", "vfeats", "vmasks")}
    inputs["vfeats"] = inputs["vfeats"].to(dtype)  # files hold float16
    return inputs


def config_spans(config: DatasetConfig, num_seconds: int) -> list[Span]:
    """Returns the windows of a video as the aligner cut them."""
    assert config.sliding_window, "the aligner has looked"
    assert config.sliding_window_size, "the aligner has looked"
    return window_spans(num_seconds, config.sliding_window, config.sliding_window_size)


def finite(rows_ND: torch.Tensor, what: str) -> torch.Tensor:
    """Returns `rows_ND`; `what` names the rows in messages, such as `captions`.

    Raises:
        CheckpointError: a row holds NaN or infinity.
    """
    bad = int((~rows_ND.isfinite().all(dim=1)).sum())
    if bad:
        raise CheckpointError(
            f"In one batch, the vectors of {bad} of {len(rows_ND)} {what} are not finite, so the "
            "checkpoint has diverged or the features are damaged; evaluate an earlier checkpoint "
            "or check `dataset.vfeat_dir`."
        )
    return rows_ND
