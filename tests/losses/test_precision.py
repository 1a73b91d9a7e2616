"""How exactly products of half-precision states are made: TF32 loses hardly more than the states have lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mmpt.losses import tokenscore
from mmpt.losses.precision import product_precision
from mmpt.losses.tokenscore import token_score_sums
from mmpt.utils.products import product


@pytest.mark.parametrize(
    ("dtype", "on_gpu"), [(torch.float16, "high"), (torch.bfloat16, "high"), (torch.float32, None)]
)
def test_only_half_precision_on_a_gpu_is_multiplied_in_tf32(dtype: torch.dtype, on_gpu: str | None) -> None:
    with FakeTensorMode():
        assert product_precision(torch.empty(1, dtype=dtype, device="cuda")) == on_gpu
    assert product_precision(torch.empty(1, dtype=dtype)) is None


def tf32(factors: Tensor) -> Tensor:
    """Round to the nearest number of 10 bits after the leading one."""
    bits = factors.detach().contiguous().view(torch.int32)
    return ((bits + (1 << 12)) >> 13 << 13).view(torch.float32)


def states(seed: int, num: int, length: int) -> tuple[Tensor, Tensor]:
    """States float64 of a common direction, as BERT's are, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(64, generator=generator)
    values = torch.randn(num, length, 64, generator=generator) + common
    return values.double(), torch.arange(length) < torch.randint(1, length + 1, (num, 1), generator=generator)


def scores_and_gradients(text: Tensor, text_mask: Tensor, video: Tensor, video_mask: Tensor) -> list[Tensor]:
    y, x = text.clone().requires_grad_(), video.clone().requires_grad_()
    sums = token_score_sums(y, text_mask, x, video_mask, 0.1)
    torch.autograd.backward(sums, [torch.linspace(-1, 1, sums[0].numel()).view_as(sums[0]).to(sums[0])] * 2)
    assert y.grad is not None
    assert x.grad is not None
    return [each.detach().double() for each in (*sums, y.grad, x.grad)]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float16, 1.7), (torch.bfloat16, 1.1)])
def test_tf32_loses_hardly_more_than_half_precision(
    dtype: torch.dtype, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text, text_mask), (video, video_mask) = states(0, 24, 12), states(1, 24, 7)
    exact = scores_and_gradients(text, text_mask, video, video_mask)
    half = text.to(dtype), text_mask, video.to(dtype), video_mask
    in_float32 = scores_and_gradients(*half)
    monkeypatch.setattr(tokenscore, "product", lambda a_MK, b_NK: product(tf32(a_MK), tf32(b_NK)))
    for ours, other, wanted in zip(scores_and_gradients(*half), in_float32, exact, strict=True):
        assert not torch.equal(ours, other)
        assert (ours - wanted).norm() < most * (other - wanted).norm()  # measured: 1.57 and 1.04
