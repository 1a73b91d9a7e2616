"""What every predictor needs: eval mode, inputs on the model's device and in its precision, checks of what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager

import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.errors import CheckpointError, DataError


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode without gradients, and give the model's mode back."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def model_inputs(
    batch: ClipBatch, model: nn.Module, device: torch.device
) -> dict[str, torch.Tensor]:
    """Return caps, cmasks, vfeats and vmasks on `device`, features in the model's dtype (files hold float16)."""
    dtype = next((weight.dtype for weight in model.parameters()), torch.float32)
    return {
        "caps": batch["caps"].to(device),
        "cmasks": batch["cmasks"].to(device),
        "vfeats": batch["vfeats"].to(device, dtype),
        "vmasks": batch["vmasks"].to(device),
    }


def check_not_empty(items: Sized, listed_by: str = "dataset.test_path") -> None:
    """Raise DataError when nothing was predicted; `listed_by` is the key of the file that lists the test set."""
    if not len(items):
        raise DataError(f"The test set is empty; check `{listed_by}` and `dataset.vfeat_dir`.")


def check_finite(what: str, rows_ND: torch.Tensor) -> None:
    """Raise CheckpointError when a row holds NaN or infinity; `what` names the rows, such as `captions`."""
    bad = int((~rows_ND.isfinite().all(dim=1)).sum())
    if bad:
        raise CheckpointError(
            f"The vectors of {bad} of {len(rows_ND)} {what} are not finite, so the checkpoint has diverged or the "
            "features are damaged; evaluate an earlier checkpoint or check `dataset.vfeat_dir`."
        )
