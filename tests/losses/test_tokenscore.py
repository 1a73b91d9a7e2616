"""Fine-grained similarities against their definition over (caption, clip, token, token).

Gradients, the size of tiles and memory are tested too.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.losses.tokenscore import token_similarity

SHAPES = [(1, 1, 1, 1, 3), (5, 3, 4, 6, 2), (7, 12, 9, 5, 8), (16, 16, 6, 8, 5)]  # A, B, T, V, D


def ragged(
    a: int, b: int, t: int, v: int, d: int, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Returns random states and masks of captions and clips.

    Masks may have holes. Every caption and clip has at least one real token.
    """
    generator = torch.Generator().manual_seed(seed)

    def one(n: int, length: int) -> tuple[Tensor, Tensor]:
        states = torch.randn(n, length, d, generator=generator, dtype=torch.float64).to(dtype)
        mask = torch.rand(n, length, generator=generator) < torch.rand(n, 1, generator=generator)
        mask[torch.arange(n), torch.randint(length, (n,), generator=generator)] = True
        return states, mask

    return *one(a, t), *one(b, v)


def dense(
    text: Tensor, text_mask: Tensor, video: Tensor, video_mask: Tensor, alpha: float, released: bool
) -> tuple[Tensor, Tensor]:
    """Returns W1 and W2 by their definition.

    The cosines of padded tokens are set to 0. In the inner sum they count exp(0) = 1 each, which is
    subtracted.
    """
    text, video = (x / x.norm(dim=-1, keepdim=True) for x in (text, video))
    both = text_mask[:, None, :, None] & video_mask[None, :, None, :]
    exp = torch.where(both, torch.einsum("atd,bvd->abtv", text, video) / alpha, 0).exp()
    t2v = alpha * (exp.sum(3) - (~video_mask).sum(1)[None, :, None]).log()
    v2t = alpha * (exp.sum(2) - (~text_mask).sum(1)[:, None, None]).log()
    if not released:
        t2v, v2t = t2v * text_mask[:, None], v2t * video_mask[None]
    return t2v.sum(2) / text_mask.sum(1)[:, None], v2t.sum(2) / video_mask.sum(1)


def paper(states: Any, alpha: float = 1.0, tile_bytes: int | None = None) -> tuple[Tensor, Tensor]:
    """Returns the similarities of (text, text mask, video, video mask) as in the paper."""
    return token_similarity(*states, alpha=alpha, masked_outer_sum=False, tile_bytes=tile_bytes)


def scores_and_gradients(states: Any, tile_bytes: int | None = None) -> list[Tensor]:
    y, text_mask, x, video_mask = states
    y, x = y.detach().requires_grad_(), x.detach().requires_grad_()
    scores = paper((y, text_mask, x, video_mask), tile_bytes=tile_bytes)
    (scores[0].sin().sum() + scores[1].cos().sum()).backward()
    return [*scores, y.grad, x.grad]


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_and_gradients_equal_the_definition(
    shape: Any, seed: int, alpha: float, released: bool
) -> None:
    text, text_mask, video, video_mask = ragged(*shape, seed=seed)
    weights = torch.randn(
        2, shape[0], shape[1], generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    results = []
    for tiled in (True, False):
        y, x = text.clone().requires_grad_(), video.clone().requires_grad_()
        if tiled:
            options = {"alpha": alpha, "masked_outer_sum": released, "tile_bytes": 512}
            scores = token_similarity(y, text_mask, x, video_mask, **options)
        else:
            scores = dense(y, text_mask, x, video_mask, alpha, released)
        sum((w * s).sum() for w, s in zip(weights, scores, strict=True)).backward()
        results.append([*(s.detach() for s in scores), y.grad, x.grad])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12)  # measured: 1e-14


@pytest.mark.parametrize("empty", [[0], [2], [3], [2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("tile_bytes", [1, 1 << 20])
def test_scores_without_a_real_token_are_not_finite(empty: list[int], tile_bytes: int) -> None:
    text, text_mask, video, video_mask = ragged(4, 4, 5, 6, 8, seed=6)
    no_text, no_video = text_mask.clone(), video_mask.clone()
    no_text[empty], no_video[empty] = False, False
    _, v2t = paper((text, no_text, video, video_mask), tile_bytes=tile_bytes)
    t2v, _ = paper((text, text_mask, video, no_video), tile_bytes=tile_bytes)
    assert not torch.isfinite(v2t[empty]).any()
    assert not torch.isfinite(t2v[:, empty]).any()


def test_padding_matters_only_in_the_released_form() -> None:
    text, text_mask, video, video_mask = ragged(4, 4, 5, 5, 6, seed=2)
    padding = torch.randn(4, 3, 6, dtype=text.dtype), torch.zeros(4, 3, dtype=torch.bool)
    longer = torch.cat([text, padding[0]], 1), torch.cat([text_mask, padding[1]], 1)
    for released in (True, False):
        short = token_similarity(
            text, text_mask, video, video_mask, alpha=1.0, masked_outer_sum=released
        )
        padded = token_similarity(*longer, video, video_mask, alpha=1.0, masked_outer_sum=released)
        assert torch.allclose(short[0], padded[0]) is not released


@pytest.mark.parametrize("tile_bytes", [1, 4096, 1 << 30])
def test_tile_size_does_not_matter(tile_bytes: int) -> None:
    states = ragged(20, 24, 7, 6, 16, seed=3)
    ours, theirs = (scores_and_gradients(states, size) for size in (tile_bytes, 20_000))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)  # measured: 1e-14


def test_states_need_not_be_contiguous() -> None:
    text, text_mask, video, video_mask = ragged(4, 5, 6, 3, 8, seed=8)
    scattered = text.transpose(0, 1).contiguous().transpose(0, 1)
    expanded = video[:, :, None].expand(-1, -1, 2, -1)[:, :, 0]
    assert not scattered.is_contiguous()
    ours = scores_and_gradients((scattered, text_mask, expanded, video_mask))
    theirs = scores_and_gradients((text, text_mask, video, video_mask))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    text, text_mask, video, video_mask = ragged(6, 6, 5, 4, 8, seed=6, dtype=dtype)
    y, x = text.requires_grad_(), video.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums = paper((y, text_mask, x, video_mask))
    exact = paper((text.double(), text_mask, video.double(), video_mask))
    assert sums[0].dtype == torch.float32
    # Measured: 1.2e-6.
    torch.testing.assert_close(sums, tuple(s.float() for s in exact), rtol=5e-6, atol=1e-6)
    (sums[0] + sums[1]).sum().backward()
    assert y.grad.dtype == dtype
    assert torch.isfinite(y.grad).all()
    assert torch.isfinite(x.grad).all()


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_tensor_over_all_token_pairs_exists() -> None:
    clips, t, v, d, tile = 48, 9, 8, 4, 16_384
    text, text_mask, video, video_mask = ragged(clips, clips, t, v, d, seed=7, dtype=torch.float32)
    y, x = text.requires_grad_(), video.requires_grad_()
    with LargestTensor() as seen:
        scores = token_similarity(
            y, text_mask, x, video_mask, alpha=1.0, masked_outer_sum=True, tile_bytes=tile
        )
        (scores[0].sum() + scores[1].sum()).backward()
    # A tile may exceed its size by a clip each way; measured: 4998 of 8192.
    assert seen.numel < 2 * tile / 4
    assert seen.numel < clips * clips * t * v / 20
    with LargestTensor() as seen_dense:
        dense(y, text_mask, x, video_mask, 1.0, True)
    assert seen_dense.numel == clips * clips * t * v  # so such a tensor would be seen
