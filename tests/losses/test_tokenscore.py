"""Fine-grained similarities against their definition over (caption, clip, token, token).

Gradients, the size of tiles and memory are tested too.
"""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmpt.losses.tokenscore import token_similarity

# A, B, T, V, D.
SHAPES = [(1, 1, 1, 1, 3), (5, 3, 4, 6, 2), (7, 12, 9, 5, 8), (16, 16, 6, 8, 5)]


class Inputs(NamedTuple):
    """Arguments of `token_similarity`."""

    text: Tensor
    text_mask: Tensor
    video: Tensor
    video_mask: Tensor


def ragged(
    a: int,
    b: int,
    t: int,
    v: int,
    d: int,
    seed: int,
    dtype: torch.dtype = torch.float64,
) -> Inputs:
    """Returns random states and masks of captions and clips.

    Masks may have holes. Every caption and clip has at least one real token.
    """
    generator = torch.Generator().manual_seed(seed)

    def one(n: int, length: int) -> tuple[Tensor, Tensor]:
        states = torch.randn(n, length, d, generator=generator, dtype=torch.float64)
        share = torch.rand(n, 1, generator=generator)
        mask = torch.rand(n, length, generator=generator) < share
        certain = torch.randint(length, (n,), generator=generator)
        mask[torch.arange(n), certain] = True
        return states.to(dtype), mask

    return Inputs(*one(a, t), *one(b, v))


def dense(inputs: Inputs, alpha: float, released: bool) -> tuple[Tensor, Tensor]:
    """Returns W1 and W2 by their definition.

    The cosines of padded tokens are set to 0. In the inner sum they count exp(0) = 1 each, which is
    subtracted.
    """
    text_mask, video_mask = inputs.text_mask, inputs.video_mask
    unit_text = torch.nn.functional.normalize(inputs.text, dim=-1)
    unit_video = torch.nn.functional.normalize(inputs.video, dim=-1)
    cosines = torch.einsum("atd,bvd->abtv", unit_text, unit_video)
    both_real = text_mask[:, None, :, None] & video_mask[None, :, None, :]
    exponentials = torch.where(both_real, cosines / alpha, 0).exp()

    num_text_padding = (~text_mask).sum(1)
    num_video_padding = (~video_mask).sum(1)
    video_sums = exponentials.sum(3) - num_video_padding[None, :, None]
    text_sums = exponentials.sum(2) - num_text_padding[:, None, None]
    t2v = alpha * video_sums.log()
    v2t = alpha * text_sums.log()
    if not released:
        t2v = t2v * text_mask[:, None]
        v2t = v2t * video_mask[None]
    num_text = text_mask.sum(1)
    num_video = video_mask.sum(1)
    return t2v.sum(2) / num_text[:, None], v2t.sum(2) / num_video


def paper(
    inputs: Inputs, alpha: float = 1.0, tile_bytes: int | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the similarities as in the paper."""
    return token_similarity(
        *inputs, alpha=alpha, masked_outer_sum=False, tile_bytes=tile_bytes
    )


def with_gradient(inputs: Inputs) -> Inputs:
    """Returns inputs whose states are new leaves that need a gradient."""
    text = inputs.text.detach().requires_grad_()
    video = inputs.video.detach().requires_grad_()
    return inputs._replace(text=text, video=video)


def scores_and_gradients(inputs: Inputs, tile_bytes: int | None = None) -> list[Tensor]:
    leaves = with_gradient(inputs)
    t2v, v2t = paper(leaves, tile_bytes=tile_bytes)
    (t2v.sin().sum() + v2t.cos().sum()).backward()
    return [t2v, v2t, leaves.text.grad, leaves.video.grad]


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_and_gradients_equal_the_definition(
    shape: Any, seed: int, alpha: float, released: bool
) -> None:
    inputs = ragged(*shape, seed=seed)
    ours, theirs = with_gradient(inputs), with_gradient(inputs)
    scores = token_similarity(
        *ours, alpha=alpha, masked_outer_sum=released, tile_bytes=512
    )
    expected = dense(theirs, alpha, released)
    # measured: 1e-14
    torch.testing.assert_close(scores, expected, rtol=1e-11, atol=1e-12)

    generator = torch.Generator().manual_seed(9)
    weights = torch.randn(2, *shape[:2], generator=generator, dtype=torch.float64)
    (weights * torch.stack(scores)).sum().backward()
    (weights * torch.stack(expected)).sum().backward()
    # Measured: 1e-14.
    torch.testing.assert_close(ours.text.grad, theirs.text.grad, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        ours.video.grad, theirs.video.grad, rtol=1e-11, atol=1e-12
    )


@pytest.mark.parametrize("empty", [[0], [2], [3], [2, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("tile_bytes", [1, 1 << 20])
def test_scores_without_a_real_token_are_not_finite(
    empty: list[int], tile_bytes: int
) -> None:
    inputs = ragged(4, 4, 5, 6, 8, seed=6)
    no_text = inputs.text_mask.clone()
    no_video = inputs.video_mask.clone()
    no_text[empty] = False
    no_video[empty] = False
    _, v2t = paper(inputs._replace(text_mask=no_text), tile_bytes=tile_bytes)
    t2v, _ = paper(inputs._replace(video_mask=no_video), tile_bytes=tile_bytes)
    assert not torch.isfinite(v2t[empty]).any()
    assert not torch.isfinite(t2v[:, empty]).any()


def test_padding_has_an_effect_only_in_the_released_form() -> None:
    short = ragged(4, 4, 5, 5, 6, seed=2)
    padding = torch.randn(4, 3, 6, dtype=torch.float64)
    no_token = torch.zeros(4, 3, dtype=torch.bool)
    longer = short._replace(
        text=torch.cat([short.text, padding], 1),
        text_mask=torch.cat([short.text_mask, no_token], 1),
    )
    for released in (True, False):
        t2v, _ = token_similarity(*short, alpha=1.0, masked_outer_sum=released)
        padded_t2v, _ = token_similarity(*longer, alpha=1.0, masked_outer_sum=released)
        assert torch.allclose(t2v, padded_t2v) is not released


@pytest.mark.parametrize("released", [True, False])
def test_log_mean_exp_does_not_depend_on_the_number_of_tokens(released: bool) -> None:
    once = ragged(4, 5, 3, 6, 8, seed=4)
    # every token twice, among padding
    twice = Inputs(
        once.text.repeat(1, 2, 1),
        once.text_mask.repeat(1, 2),
        once.video.repeat(1, 2, 1),
        once.video_mask.repeat(1, 2),
    )
    options: dict[str, Any] = {"alpha": 0.3, "masked_outer_sum": released}
    scores = torch.stack(token_similarity(*once, **options, log_mean_exp=True))
    scores_twice = torch.stack(token_similarity(*twice, **options, log_mean_exp=True))
    torch.testing.assert_close(scores, scores_twice, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(
        torch.stack(token_similarity(*once, **options)),
        torch.stack(token_similarity(*twice, **options)),
    )
    # A mean of cosines that are all equal is that cosine.
    equal = once._replace(
        text=torch.ones_like(once.text), video=torch.ones_like(once.video)
    )
    for score in token_similarity(*equal, **options, log_mean_exp=True):
        torch.testing.assert_close(score, torch.ones_like(score))


@pytest.mark.parametrize("tile_bytes", [1, 4096, 1 << 30])
def test_the_size_of_tiles_has_no_effect(tile_bytes: int) -> None:
    inputs = ragged(20, 24, 7, 6, 16, seed=3)
    ours = scores_and_gradients(inputs, tile_bytes)
    theirs = scores_and_gradients(inputs, 20_000)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)  # measured: 1e-14


def test_states_need_not_be_contiguous() -> None:
    inputs = ragged(4, 5, 6, 3, 8, seed=8)
    scattered = inputs.text.transpose(0, 1).contiguous().transpose(0, 1)
    expanded = inputs.video[:, :, None].expand(-1, -1, 2, -1)[:, :, 0]
    assert not scattered.is_contiguous()
    ours = scores_and_gradients(inputs._replace(text=scattered, video=expanded))
    theirs = scores_and_gradients(inputs)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = with_gradient(ragged(6, 6, 5, 4, 8, seed=6, dtype=dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = torch.stack(paper(inputs))
    assert scores.dtype == torch.float32
    doubles = inputs._replace(text=inputs.text.double(), video=inputs.video.double())
    exact = torch.stack(paper(doubles))
    # measured: 1.2e-6
    torch.testing.assert_close(scores, exact.float(), rtol=5e-6, atol=1e-6)

    scores.sum().backward()
    assert inputs.text.grad.dtype == dtype
    assert inputs.text.grad.isfinite().all()
    assert inputs.video.grad.isfinite().all()


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of any tensor that an operation returns."""

    numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_no_tensor_has_an_element_for_each_pair_of_tokens() -> None:
    clips, t, v, d = 48, 9, 8, 4
    tile_bytes = 16_384
    num_pairs = clips * clips * t * v
    inputs = with_gradient(ragged(clips, clips, t, v, d, seed=7, dtype=torch.float32))
    with LargestTensor() as seen:
        t2v, v2t = token_similarity(
            *inputs, alpha=1.0, masked_outer_sum=True, tile_bytes=tile_bytes
        )
        (t2v.sum() + v2t.sum()).backward()
    # A tile may exceed its size by one clip in each dimension. Measured: 4998 of 8192.
    assert seen.numel < 2 * tile_bytes / 4
    assert seen.numel < num_pairs / 20
    with LargestTensor() as seen_dense:
        dense(inputs, 1.0, True)
    assert seen_dense.numel == num_pairs  # so such a tensor would be found
