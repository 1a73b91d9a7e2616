"""Fine-grained log-sum-exp scores between all captions and all clips, over real tokens only, in
tiles.

Chosen form: a tile is all pairs of the real tokens of some neighbouring captions with those of some
neighbouring clips. One matrix product makes it, it serves both directions, and backward makes it
again instead of keeping it; no tensor over (caption, clip, token, token) ever exists.

Legend: A captions, B clips, T and V their positions (real and padded), D hidden size; within a
tile: y, x real caption and clip tokens, a, b captions and clips.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.losses.precision import wide, wide_type

MIN_ALPHA = 0.02
"""Below it exp(cosine / alpha) could leave float32."""
CPU_TILE_BYTES = 2 << 20
"""Default size of a tile of token pairs on a CPU; larger ones are no faster."""
DEVICE_TILE_BYTES = 128 << 20
"""Default size of a tile on other devices: few large launches."""


@dataclass(frozen=True)
class Part:
    """Some neighbouring clips (or captions) of a batch and their real tokens."""

    clips: slice
    tokens: Tensor  # int64 [tokens]: rows of the states flattened to [clips * positions, D]
    owners: Tensor  # int64 [tokens]: to which of `clips` each belongs, from 0, never falling

    def sum_rows(self, matrix_yN: Tensor) -> Tensor:
        """Sum the rows of each clip's tokens: [y, N] to [a, N]."""
        total_aN = matrix_yN.new_zeros(self.clips.stop - self.clips.start, matrix_yN.shape[1])
        return total_aN.index_add_(0, self.owners, matrix_yN)

    def sum_columns(self, matrix_Nx: Tensor) -> Tensor:
        """Sum the columns of each clip's tokens: [N, x] to [N, b]."""
        total_Nb = matrix_Nx.new_zeros(matrix_Nx.shape[0], self.clips.stop - self.clips.start)
        return total_Nb.index_add_(1, self.owners, matrix_Nx)


def cut(mask_BN: Tensor, lengths: list[int], tokens_per_part: int) -> list[Part]:
    """Cut a batch into parts of about `tokens_per_part` real tokens, one clip or more each.

    The parts are as equal in size as whole clips allow.

    Args:
        mask_BN: bool [clips, positions], True = real.
        lengths: real tokens of each clip, known here so that nothing waits for the device.
        tokens_per_part: about how many tokens a part has.
    """
    ends = [0, *accumulate(lengths)]
    num_parts = max(1, math.ceil(ends[-1] / tokens_per_part))
    goals = [ends[-1] * number / num_parts for number in range(1, num_parts)]
    # A part ends with the clip that reaches its goal, the last part with the last clip.
    stops = sorted({*(bisect_left(ends, goal) for goal in goals), len(lengths)})
    real_first = torch.argsort(~mask_BN.flatten(), stable=True)
    parts = []
    for start, stop in pairwise([0, *stops]):
        tokens = real_first[ends[start] : ends[stop]]
        parts.append(Part(slice(start, stop), tokens, tokens // mask_BN.shape[1] - start))
    return parts


def unit_tokens(states: Tensor, part: Part, alpha: float = 1) -> tuple[Tensor, Tensor]:
    """Return the part's tokens divided by their norms and alpha, [tokens, D], and the norms;
    float32 or wider.
    """
    rows = wide(states.flatten(0, 1)[part.tokens])
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(norms * alpha), norms


def unit_gradient(unit: Tensor, norms: Tensor, grad_unit: Tensor) -> Tensor:
    """Return the gradient of the tokens from that of their unit vectors, in the memory of
    `grad_unit`.
    """
    along = torch.linalg.vecdot(grad_unit, unit).unsqueeze(1)
    return grad_unit.addcmul_(unit, along, value=-1).div_(norms)


class _TokenScores(torch.autograd.Function):
    """Sums over real tokens of both log-sum-exp directions, for every caption a and clip b.

    t2v_ab = sum_t alpha log sum_v exp(cos(text_at, video_bv) / alpha) over real t and v; v2t_ab
    with t and v exchanged.
    """

    @staticmethod
    def forward(
        ctx: Any,
        text: Tensor,
        text_mask: Tensor,
        video: Tensor,
        video_mask: Tensor,
        alpha: float,
        tile_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        # One list of numbers, so that the host waits for the device once.
        lengths = torch.cat([text_mask.sum(1), video_mask.sum(1)]).tolist()
        # Wide tiles: captions are gathered again for each part of clips.
        rows = max(1, math.isqrt(tile_bytes // wide_type(text).itemsize // 2))
        text_parts = cut(text_mask, lengths[: len(text)], rows)
        video_parts = cut(video_mask, lengths[len(text) :], 2 * rows)
        ctx.save_for_backward(text, video)
        ctx.parts, ctx.alpha = (text_parts, video_parts), alpha
        sums_t2v = text.new_zeros(len(text), len(video), dtype=wide_type(text))
        sums_v2t = torch.zeros_like(sums_t2v)
        with torch.autocast(text.device.type, enabled=False):  # it would multiply in half precision
            for video_part in video_parts:
                unit_xD, _ = unit_tokens(video, video_part)
                for text_part in text_parts:
                    scaled_yD, _ = unit_tokens(text, text_part, alpha)
                    exp_yx = (scaled_yD @ unit_xD.T).exp_()
                    t2v_ab = text_part.sum_rows(video_part.sum_columns(exp_yx).log_())
                    v2t_ab = video_part.sum_columns(text_part.sum_rows(exp_yx).log_())
                    sums_t2v[text_part.clips, video_part.clips] = t2v_ab.mul_(alpha)
                    sums_v2t[text_part.clips, video_part.clips] = v2t_ab.mul_(alpha)
        return sums_t2v, sums_v2t

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_t2v: Tensor, grad_v2t: Tensor) -> tuple[Tensor | None, ...]:
        text, video = ctx.saved_tensors
        text_parts, video_parts = ctx.parts
        grad_text = torch.zeros_like(text, dtype=wide_type(text))
        grad_video = torch.zeros_like(video)
        rows_of_text, rows_of_video = grad_text.flatten(0, 1), grad_video.flatten(0, 1)
        with torch.autocast(text.device.type, enabled=False):
            for video_part in video_parts:
                unit_xD, norms = unit_tokens(video, video_part)
                grad_xD = torch.zeros_like(unit_xD)
                for text_part in text_parts:
                    scaled_yD, _ = unit_tokens(text, text_part, ctx.alpha)
                    exp_yx = (scaled_yD @ unit_xD.T).exp_()
                    # d t2v_ab / d s_yx = exp_yx / (sum of exp over the tokens of b), and likewise
                    # over the tokens of a for v2t.
                    where = text_part.clips, video_part.clips
                    factor_yb = grad_t2v[where][text_part.owners]
                    factor_yb.div_(video_part.sum_columns(exp_yx))
                    factor_ax = grad_v2t[where][:, video_part.owners]
                    factor_ax.div_(text_part.sum_rows(exp_yx))
                    factor_yx = factor_yb.index_select(1, video_part.owners)
                    grad_yx = exp_yx.mul_(factor_ax[text_part.owners].add_(factor_yx))
                    grad_xD.addmm_(grad_yx.T, scaled_yD, alpha=ctx.alpha)
                    rows_of_text.index_add_(0, text_part.tokens, grad_yx @ unit_xD)
                grad_xD = unit_gradient(unit_xD, norms, grad_xD)
                rows_of_video[video_part.tokens] = grad_xD.to(video.dtype)
            for text_part in text_parts:
                unit_yD, norms = unit_tokens(text, text_part)
                rows_of_text[text_part.tokens] = unit_gradient(
                    unit_yD, norms, rows_of_text[text_part.tokens]
                )
        return grad_text.to(text.dtype), None, grad_video, None, None, None


def token_similarity(
    text_ATD: Tensor,
    text_mask_AT: Tensor,
    video_BVD: Tensor,
    video_mask_BV: Tensor,
    *,
    alpha: float,
    masked_outer_sum: bool,
    tile_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the fine-grained log-sum-exp scores text to video (W1) and video to text (W2), float
    [A, B] each.

    W1 averages alpha log sum_v exp(cos / alpha) over a caption's tokens, W2 the same with the roles
    exchanged. First-order gradients with respect to both states; memory beside the gradients is a
    few tiles. Forward waits for a GPU once, to learn the number of real tokens of every caption and
    clip; backward never does.

    Args:
        text_ATD: float [A, T, D], caption token states; half precision is computed in float32.
        text_mask_AT: bool [A, T], True = real; a caption or clip without a real token has no finite
            scores.
        video_BVD: float [B, V, D], clip token states.
        video_mask_BV: bool [B, V].
        alpha: smoothness of the maximum, at least `MIN_ALPHA` in float32.
        masked_outer_sum: also count padded positions in the outer sum, as the released code does:
            their cosines are 0, so each adds alpha log n_v (W1) or alpha log n_t (W2), and the
            score depends on padding. False: the paper.
        tile_bytes: about how large a tile of token pairs is; the result does not depend on it.
            None: by device.
    Source: Norton (arXiv 2401.16702), Eq. 5.
    """
    if tile_bytes is None:
        tile_bytes = CPU_TILE_BYTES if text_ATD.device.type == "cpu" else DEVICE_TILE_BYTES
    text_ATD, video_BVD = text_ATD.contiguous(), video_BVD.contiguous()
    t2v_AB, v2t_AB = _TokenScores.apply(  # type: ignore[no-untyped-call]
        text_ATD, text_mask_AT, video_BVD, video_mask_BV, alpha, tile_bytes
    )
    num_text_A1 = text_mask_AT.sum(1, keepdim=True).to(t2v_AB.dtype)
    num_video_B = video_mask_BV.sum(1).to(t2v_AB.dtype)
    if masked_outer_sum:
        t2v_AB = t2v_AB + (text_mask_AT.shape[1] - num_text_A1) * (alpha * num_video_B.log())
        v2t_AB = v2t_AB + (video_mask_BV.shape[1] - num_video_B) * (alpha * num_text_A1.log())
    return t2v_AB / num_text_A1, v2t_AB / num_video_B
