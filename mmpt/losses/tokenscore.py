"""Fine-grained log-sum-exp scores between all captions and all clips, over real tokens only, in tiles.

Chosen form: real tokens are packed position by position over clips sorted by length, so that a sum over a clip's tokens
is a few additions of contiguous blocks. Each tile of token pairs is made by one matrix product, serves both directions,
and is made again in backward instead of being kept; no tensor over (caption, clip, token, token) ever exists.

Legend: A captions, B clips, T and V their positions (real and padded), D hidden size; within a tile: y, x real caption
and clip tokens, a, b captions and clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmpt.losses.precision import wide, wide_type

MIN_ALPHA = 0.02
"""Below it exp(cosine / alpha) could leave float32."""
CPU_TILE_BYTES = 2 << 20
"""Default size of a tile of token pairs on a CPU; measured: 4 times as much is no faster, half is 8 % slower."""
DEVICE_TILE_BYTES = 128 << 20
"""Default size of a tile elsewhere: few large launches."""


@dataclass(frozen=True)
class TokenTile:
    """Some clips, longest first, and their real tokens: all first tokens, then all second tokens, and so on."""

    clips: Tensor  # int64 [number of clips]: row in the batch
    tokens: Tensor  # int64 [number of tokens]: row in the states flattened to [clips * positions, D]
    places: Tensor  # int64 [number of tokens]: to which of `clips` each belongs
    counts: list[int]  # clips that have a first, second, .. token; never rising

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """Yield, for each token position, its slice of the tile's tokens and its number of clips (the tile's first)."""
        start = 0
        for count in self.counts:
            yield slice(start, start + count), count
            start += count

    def sum_rows(self, matrix_yN: Tensor) -> Tensor:
        """Sum the rows of each clip's tokens: [y, N] to [a, N]."""
        total_aN = matrix_yN[: self.counts[0]].clone()
        for block, count in list(self.blocks())[1:]:
            total_aN[:count] += matrix_yN[block]
        return total_aN

    def sum_columns(self, matrix_Nx: Tensor) -> Tensor:
        """Sum the columns of each clip's tokens: [N, x] to [N, b]."""
        total_Nb = matrix_Nx[:, : self.counts[0]].clone()
        for block, count in list(self.blocks())[1:]:
            total_Nb[:, :count] += matrix_Nx[:, block]
        return total_Nb


def pack_tokens(mask_BN: Tensor, tokens_per_tile: int) -> list[TokenTile]:
    """Sort clips by number of real tokens and cut them into tiles of about `tokens_per_tile` tokens (one clip or more).

    Args:
        mask_BN: bool [clips, positions], True = real. Clips without a real token are left out.
        tokens_per_tile: where to cut; a tile ends with the clip that reaches it.
    """
    mask = mask_BN.cpu()
    lengths, order = mask.sum(1).sort(descending=True, stable=True)
    order, lengths = order[lengths > 0], lengths[lengths > 0]
    real_first = torch.argsort(~mask, dim=1, stable=True)  # positions of each clip, the real ones first
    flat_BN = real_first + torch.arange(len(mask)).unsqueeze(1) * mask.shape[1]
    group_of_clip = ((lengths.cumsum(0) - lengths) // max(1, tokens_per_tile)).tolist()
    tiles: list[TokenTile] = []
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and group_of_clip[last] == group_of_clip[first]:
            last += 1
        clips, size = order[first:last], lengths[first:last]
        has_nth_NB = torch.arange(int(size[0])).unsqueeze(1) < size
        tokens = flat_BN[clips].T[: int(size[0])][has_nth_NB]
        places = has_nth_NB.nonzero()[:, 1]
        counts = has_nth_NB.sum(1).tolist()
        device = mask_BN.device
        tiles.append(TokenTile(clips.to(device), tokens.to(device), places.to(device), counts))
        first = last
    return tiles


def unit_tokens(states: Tensor, tile: TokenTile) -> tuple[Tensor, Tensor]:
    """Return the tile's tokens divided by their norms, [tokens, D], and the norms, [tokens, 1]; float32 or wider."""
    rows = wide(states.flatten(0, 1)[tile.tokens])
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(norms), norms


def unit_gradient(unit: Tensor, norms: Tensor, grad_unit: Tensor) -> Tensor:
    """Return the gradient of the tokens from that of their unit vectors, in the memory of `grad_unit`."""
    along = torch.linalg.vecdot(grad_unit, unit).unsqueeze(1)
    return grad_unit.addcmul_(unit, along, value=-1).div_(norms)


class _TokenScores(torch.autograd.Function):
    """Sums over real tokens of both log-sum-exp directions; see `token_score_sums`."""

    @staticmethod
    def forward(
        ctx: Any, text: Tensor, text_mask: Tensor, video: Tensor, video_mask: Tensor, alpha: float, tile_bytes: int
    ) -> tuple[Tensor, Tensor]:
        text_tiles, video_tiles = _cut(text, text_mask, video_mask, tile_bytes)
        ctx.save_for_backward(text, video)
        ctx.tiles, ctx.alpha = (text_tiles, video_tiles), alpha
        sums_t2v = text.new_zeros(len(text), len(video), dtype=wide_type(text))
        sums_v2t = torch.zeros_like(sums_t2v)
        with torch.autocast(text.device.type, enabled=False):
            buffer = _workspace(text_tiles, video_tiles, sums_t2v)
            for video_tile in video_tiles:
                unit_xD, _ = unit_tokens(video, video_tile)
                for text_tile in text_tiles:
                    exp_yx = _exponentials(unit_tokens(text, text_tile)[0], unit_xD, ctx.alpha, buffer)
                    where = text_tile.clips.unsqueeze(1), video_tile.clips
                    sums_t2v[where] = text_tile.sum_rows(video_tile.sum_columns(exp_yx).log_()).mul_(alpha)
                    sums_v2t[where] = video_tile.sum_columns(text_tile.sum_rows(exp_yx).log_()).mul_(alpha)
        return sums_t2v, sums_v2t

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_t2v: Tensor, grad_v2t: Tensor) -> tuple[Tensor | None, ...]:
        text, video = ctx.saved_tensors
        text_tiles, video_tiles = ctx.tiles
        grad_text, grad_video = torch.zeros_like(text, dtype=wide_type(text)), torch.zeros_like(video)
        rows_of_text, rows_of_video = grad_text.view(-1, text.shape[-1]), grad_video.view(-1, video.shape[-1])
        with torch.autocast(text.device.type, enabled=False):
            buffer = _workspace(text_tiles, video_tiles, grad_t2v)
            for video_tile in video_tiles:
                unit_xD, norms = unit_tokens(video, video_tile)
                grad_xD = torch.zeros_like(unit_xD)
                for text_tile in text_tiles:
                    unit_yD, _ = unit_tokens(text, text_tile)
                    exp_yx = _exponentials(unit_yD, unit_xD, ctx.alpha, buffer)
                    where = text_tile.clips.unsqueeze(1), video_tile.clips
                    grad_yx = _pair_gradients(exp_yx, text_tile, video_tile, grad_t2v[where], grad_v2t[where])
                    grad_xD.addmm_(grad_yx.T, unit_yD)
                    rows_of_text.index_add_(0, text_tile.tokens, torch.mm(grad_yx, unit_xD, out=unit_yD))
                rows_of_video[video_tile.tokens] = unit_gradient(unit_xD, norms, grad_xD).to(video.dtype)
            for text_tile in text_tiles:
                unit_yD, norms = unit_tokens(text, text_tile)
                rows_of_text[text_tile.tokens] = unit_gradient(unit_yD, norms, rows_of_text[text_tile.tokens])
        return grad_text.to(text.dtype), None, grad_video, None, None, None


def _cut(
    text: Tensor, text_mask: Tensor, video_mask: Tensor, tile_bytes: int
) -> tuple[list[TokenTile], list[TokenTile]]:
    """Cut captions and clips so that a tile of token pairs takes about `tile_bytes`."""
    rows = max(1, int((tile_bytes / wide_type(text).itemsize / 2) ** 0.5))
    return pack_tokens(text_mask, rows), pack_tokens(video_mask, 2 * rows)  # wide: captions are packed again per column


def _workspace(text_tiles: list[TokenTile], video_tiles: list[TokenTile], like: Tensor) -> Tensor:
    """Return an empty buffer that holds the largest tile."""
    largest = [max((len(tile.tokens) for tile in tiles), default=0) for tiles in (text_tiles, video_tiles)]
    return torch.empty(largest[0] * largest[1], dtype=like.dtype, device=like.device)


def _exponentials(unit_yD: Tensor, unit_xD: Tensor, alpha: float, buffer: Tensor) -> Tensor:
    """Return exp(cosine / alpha) of every pair of the tile, [y, x], in `buffer`."""
    exp_yx = buffer[: len(unit_yD) * len(unit_xD)].view(len(unit_yD), len(unit_xD))
    return torch.addmm(exp_yx, unit_yD, unit_xD.T, beta=0, alpha=1 / alpha, out=exp_yx).exp_()


def _pair_gradients(
    exp_yx: Tensor, text_tile: TokenTile, video_tile: TokenTile, grad_t2v_ab: Tensor, grad_v2t_ab: Tensor
) -> Tensor:
    """Turn the exponentials of a tile into the gradients of its cosines, [y, x], in place.

    d t2v_ab / d s_yx = exp_yx / (sum of exp over the tokens of b), and likewise over the tokens of a for v2t.
    """
    factor_yb = video_tile.sum_columns(exp_yx).reciprocal_()
    for block, count in text_tile.blocks():
        factor_yb[block] *= grad_t2v_ab[:count]
    factor_ax = text_tile.sum_rows(exp_yx).reciprocal_()
    for block, count in video_tile.blocks():
        factor_ax[:, block] *= grad_v2t_ab[:, :count]
    for block, count in video_tile.blocks():
        factor_yx = factor_ax[:, block].index_select(0, text_tile.places)
        exp_yx[:, block] *= factor_yx.add_(factor_yb[:, :count])
    return exp_yx


def token_score_sums(
    text_ATD: Tensor,
    text_mask_AT: Tensor,
    video_BVD: Tensor,
    video_mask_BV: Tensor,
    alpha: float,
    tile_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return, for every caption a and clip b, the sums over real tokens of both log-sum-exp directions, two [A, B].

    t2v_ab = sum_t alpha log sum_v exp(cos(text_at, video_bv) / alpha) over real t and v; v2t_ab with t and v exchanged.
    First-order gradients with respect to both states; memory beside the gradients is a few tiles.

    Args:
        text_ATD: float [A, T, D], caption token states; half precision is computed in float32.
        text_mask_AT: bool [A, T], True = real.
        video_BVD: float [B, V, D], clip token states.
        video_mask_BV: bool [B, V].
        alpha: smoothness of the maximum, at least `MIN_ALPHA` in float32.
        tile_bytes: about how large a tile of token pairs is; the result does not depend on it. None: by device.
    Source: Norton (arXiv 2401.16702), Eq. 5.
    """
    tile_bytes = tile_bytes or (CPU_TILE_BYTES if text_ATD.device.type == "cpu" else DEVICE_TILE_BYTES)
    states = text_ATD.contiguous(), video_BVD.contiguous()
    return _TokenScores.apply(states[0], text_mask_AT, states[1], video_mask_BV, alpha, tile_bytes)
