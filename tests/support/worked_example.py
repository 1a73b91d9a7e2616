"""The batch of the specification's worked example of the losses, whose results have ten digits."""

from typing import Any

import torch
from torch import Tensor

from tests.support.norton import norton_loss

NORTON = norton_loss(threshold=4)


def formula_batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns the batch of the worked example: sums of sines and cosines, and masks.

    It has 16 clips, 6 video positions, 9 text positions and a hidden size of 12. Pooled states are
    masked means. The states of tokens require a gradient.
    """
    b, v, t, d = (torch.arange(n, dtype=torch.float64) for n in (16, 6, 9, 12))
    clips = b[:, None, None]
    video = (0.7 * clips + 1.1 * v[:, None] + 0.3 * d).sin() + 0.5 * (
        0.2 * clips * d
    ).cos()
    text = (0.5 * clips + 0.9 * t[:, None] + 0.4 * d).cos() + 0.5 * (
        0.3 * clips * d
    ).sin()
    video_mask = ((v >= 1) & (v <= 1 + b[:, None] % 4)) | (v == 5)
    text_mask = (t >= 1) & (t <= 2 + b[:, None] % 6)
    batch = {"video_mask_outputs": video_mask, "text_mask_outputs": text_mask}
    for tower, states in (("video", video), ("text", text)):
        states = states.to(dtype).requires_grad_()
        mask = batch[f"{tower}_mask_outputs"]
        num_real = mask.sum(1, keepdim=True)
        total = (states * mask[..., None]).sum(1)
        batch[f"{tower}_outputs"] = states
        batch[f"pooled_{tower}"] = total / num_real
    return batch


def constant_batch(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Returns the batch of the worked example without gradient."""
    return {name: tensor.detach() for name, tensor in formula_batch(dtype).items()}


def assert_close_to(value: Any, expected: Any, rtol: float = 2e-8) -> None:
    """Compares with numbers of ten digits.

    The recorded tau is a float32, so the tolerance is 2e-8. Measured: at most 1.4e-8.
    """
    torch.testing.assert_close(
        torch.as_tensor(value).detach().double(),
        torch.as_tensor(expected, dtype=torch.float64).detach(),
        rtol=rtol,
        atol=1e-9,
    )
