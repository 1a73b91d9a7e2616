"""Fine-grained similarity between all captions and all clips, from their token states.

The similarity of a caption and a clip is a log-sum-exp over the cosines of their tokens. It is
computed in tiles, so that no tensor over (caption, clip, token, token) is ever in memory.

Legend: A captions, B clips, T and V their token positions (real and padded), D hidden size. In a
tile: a captions with y real tokens, b clips with x real tokens.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import vecdot, vector_norm

from mmpt.losses.base import upcast, upcast_dtype

MIN_ALPHA = 0.02
"""Smallest alpha. Below it, exp(cosine / alpha) could leave the range of float32."""
CPU_TILE_BYTES = 2 << 20
"""Default size of a tile on a CPU. Larger ones are not faster."""
DEVICE_TILE_BYTES = 128 << 20
"""Default size of a tile on other devices, where a few large kernels are fastest."""


@dataclass(frozen=True)
class TokenBlock:
    """The real tokens of neighbouring items of a batch. An item is a caption or a clip."""

    items: slice
    """Positions of the items in the batch."""
    rows: Tensor
    """int64 [tokens], rows of the states flattened to [items * positions, D]."""
    item_of_token: Tensor
    """int64 [tokens], the item that each token belongs to, in ascending order. The first item of
    the block is 0."""

    @property
    def num_items(self) -> int:
        """Number of items in the block."""
        return self.items.stop - self.items.start

    def sum_rows(self, matrix_yN: Tensor) -> Tensor:
        """Returns the sum over the tokens of each item: rows [y, N] become [a, N]."""
        num_columns = matrix_yN.shape[1]
        total_aN = matrix_yN.new_zeros(self.num_items, num_columns)
        return total_aN.index_add_(0, self.item_of_token, matrix_yN)

    def sum_columns(self, matrix_Nx: Tensor) -> Tensor:
        """Returns the sum over the tokens of each item: columns [N, x] become [N, b]."""
        num_rows = matrix_Nx.shape[0]
        total_Nb = matrix_Nx.new_zeros(num_rows, self.num_items)
        return total_Nb.index_add_(1, self.item_of_token, matrix_Nx)


def split_into_blocks(
    mask_BN: Tensor, counts: list[int], block_size: int
) -> list[TokenBlock]:
    """Splits a batch into blocks of about `block_size` real tokens, each of at least one item.

    Args:
        mask_BN: bool [items, positions], True = real.
        counts: number of real tokens of each item. The caller knows them on the host, so that
            nothing here waits for the device.
        block_size: approximate number of tokens in a block.
    """
    # Items are not split. The i-th of k blocks ends with the item that reaches i / k of all
    # tokens, so the blocks are as equal in size as whole items allow.
    num_items, num_positions = mask_BN.shape
    ends = [0, *accumulate(counts)]
    total = ends[-1]
    num_blocks = max(1, math.ceil(total / block_size))
    borders = {0, num_items}
    for number in range(1, num_blocks):
        target = total * number / num_blocks
        borders.add(bisect_left(ends, target))

    # The flat positions of all real tokens, in order, then the positions of padding.
    is_padding = ~mask_BN.flatten()
    real_first = is_padding.argsort(stable=True)
    blocks = []
    for start, stop in pairwise(sorted(borders)):
        rows = real_first[ends[start] : ends[stop]]
        item_of_token = rows // num_positions - start
        blocks.append(TokenBlock(slice(start, stop), rows, item_of_token))
    return blocks


def normalise_tokens(
    states: Tensor, block: TokenBlock, alpha: float = 1
) -> tuple[Tensor, Tensor]:
    """Returns the tokens of a block as unit vectors divided by `alpha`, and their norms.

    Returns:
        float [tokens, D] and float [tokens, 1], in float32 or float64.
    """
    all_tokens = states.flatten(0, 1)
    tokens = upcast(all_tokens[block.rows])
    norms = vector_norm(tokens, dim=1, keepdim=True)
    return tokens.div_(norms * alpha), norms


def normalise_backward(unit: Tensor, norms: Tensor, grad_unit: Tensor) -> Tensor:
    """Returns the gradient of tokens, given the gradient g of their unit vectors u.

    It is (g - (g . u) u) / norm. `grad_unit` is overwritten with the result.
    """
    along_unit = vecdot(grad_unit, unit).unsqueeze(1)
    return grad_unit.addcmul_(unit, along_unit, value=-1).div_(norms)


def tile_forward(
    exp_yx: Tensor, text_block: TokenBlock, video_block: TokenBlock, alpha: float
) -> tuple[Tensor, Tensor]:
    """Returns t2v and v2t of a tile, as `_TokenSimilarity` defines them, float [a, b] each.

    Args:
        exp_yx: exponentials of the cosines divided by alpha.
    """
    log_yb = video_block.sum_columns(exp_yx).log_()
    log_ax = text_block.sum_rows(exp_yx).log_()
    t2v_ab = text_block.sum_rows(log_yb)
    v2t_ab = video_block.sum_columns(log_ax)
    return t2v_ab.mul_(alpha), v2t_ab.mul_(alpha)


def tile_backward(
    exp_yx: Tensor,
    text_block: TokenBlock,
    video_block: TokenBlock,
    grad_t2v_ab: Tensor,
    grad_v2t_ab: Tensor,
) -> Tensor:
    """Returns the gradient of the cosines of a tile, as `_TokenSimilarity` defines it.

    The derivative of t2v[a, b] with respect to cosine[y, x] is

        exp[y, x] / (sum of exp[y, .] over the tokens of clip b),

    that of v2t[a, b] is

        exp[y, x] / (sum of exp[., x] over the tokens of caption a).

    Each is multiplied by the incoming gradient of [a, b].

    Args:
        exp_yx: exponentials of the cosines divided by alpha. Overwritten with the result.
    """
    factor_yb = grad_t2v_ab[text_block.item_of_token]
    factor_yb.div_(video_block.sum_columns(exp_yx))
    factor_ax = grad_v2t_ab[:, video_block.item_of_token]
    factor_ax.div_(text_block.sum_rows(exp_yx))
    t2v_factor_yx = factor_yb.index_select(1, video_block.item_of_token)
    v2t_factor_yx = factor_ax[text_block.item_of_token]
    return exp_yx.mul_(v2t_factor_yx.add_(t2v_factor_yx))


class _TokenSimilarity(torch.autograd.Function):
    """Sums both directions of the log-sum-exp over the real tokens of each caption and clip.

    For caption a with tokens y and clip b with tokens x:

        t2v[a, b] = sum over y of alpha * log(sum over x of exp(cosine[y, x] / alpha))
        v2t[a, b] = sum over x of alpha * log(sum over y of exp(cosine[y, x] / alpha))
    """

    # A tile has the real tokens of some neighbouring captions as its rows and the real tokens of
    # some neighbouring clips as its columns:
    #
    #                    clip 0      clip 1
    #                  x  x  x  x    x  x
    #     caption 0  y .  .  .  .    .  .
    #                y .  .  .  .    .  .
    #     caption 1  y .  .  .  .    .  .
    #
    # One matrix product of unit vectors gives the cosines of a tile. Both directions use it: t2v
    # sums the columns of each clip, takes the logarithm and sums the rows of each caption; v2t
    # does the same with rows and columns exchanged. Padding is left out before the product.
    # Cosines are bounded, so the log-sum-exp needs no maximum (see `MIN_ALPHA`). Backward computes
    # the tiles again, so only the states are kept.

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
        # All counts in one list, so that the host waits for the device once.
        num_captions = len(text)
        counts = torch.cat([text_mask.sum(1), video_mask.sum(1)]).tolist()
        text_counts = counts[:num_captions]
        video_counts = counts[num_captions:]

        # Tiles are twice as wide as high. The captions are normalised again for each block of
        # clips, and wide tiles mean fewer such blocks.
        dtype = upcast_dtype(text)
        num_cosines = tile_bytes // dtype.itemsize
        height = max(1, math.isqrt(num_cosines // 2))
        text_blocks = split_into_blocks(text_mask, text_counts, height)
        video_blocks = split_into_blocks(video_mask, video_counts, 2 * height)
        ctx.save_for_backward(text, video)
        ctx.text_blocks = text_blocks
        ctx.video_blocks = video_blocks
        ctx.alpha = alpha

        t2v_AB = text.new_zeros(num_captions, len(video), dtype=dtype)
        v2t_AB = torch.zeros_like(t2v_AB)
        with torch.autocast(text.device.type, enabled=False):
            # Autocast would multiply in half precision.
            for video_block in video_blocks:
                unit_xD, _ = normalise_tokens(video, video_block)
                for text_block in text_blocks:
                    scaled_yD, _ = normalise_tokens(text, text_block, alpha)
                    exp_yx = (scaled_yD @ unit_xD.T).exp_()
                    tile = text_block.items, video_block.items
                    t2v_AB[tile], v2t_AB[tile] = tile_forward(
                        exp_yx, text_block, video_block, alpha
                    )
        return t2v_AB, v2t_AB

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_t2v_AB: Tensor, grad_v2t_AB: Tensor
    ) -> tuple[Tensor | None, ...]:
        text, video = ctx.saved_tensors
        # Each clip token is finished within one pass of the outer loop. A caption token gets a
        # contribution in every pass, so its gradient is summed in full precision.
        grad_text = torch.zeros_like(text, dtype=upcast_dtype(text))
        grad_video = torch.zeros_like(video)
        grad_text_rows = grad_text.flatten(0, 1)
        grad_video_rows = grad_video.flatten(0, 1)
        with torch.autocast(text.device.type, enabled=False):
            for video_block in ctx.video_blocks:
                unit_xD, norms = normalise_tokens(video, video_block)
                grad_unit_xD = torch.zeros_like(unit_xD)
                for text_block in ctx.text_blocks:
                    scaled_yD, _ = normalise_tokens(text, text_block, ctx.alpha)
                    exp_yx = (scaled_yD @ unit_xD.T).exp_()
                    tile = text_block.items, video_block.items
                    grad_cosine_yx = tile_backward(
                        exp_yx,
                        text_block,
                        video_block,
                        grad_t2v_AB[tile],
                        grad_v2t_AB[tile],
                    )
                    # Cosines are products of unit vectors; alpha undoes the scaling of captions.
                    grad_unit_xD.addmm_(grad_cosine_yx.T, scaled_yD, alpha=ctx.alpha)
                    grad_text_rows.index_add_(
                        0, text_block.rows, grad_cosine_yx @ unit_xD
                    )
                grad_xD = normalise_backward(unit_xD, norms, grad_unit_xD)
                grad_video_rows[video_block.rows] = grad_xD.to(video.dtype)
            # So far the captions have the gradients of their unit vectors.
            for text_block in ctx.text_blocks:
                unit_yD, norms = normalise_tokens(text, text_block)
                grad_unit_yD = grad_text_rows[text_block.rows]
                grad_yD = normalise_backward(unit_yD, norms, grad_unit_yD)
                grad_text_rows[text_block.rows] = grad_yD
        grad_text = grad_text.to(text.dtype)
        return grad_text, None, grad_video, None, None, None


def token_similarity(
    text_ATD: Tensor,
    text_mask_AT: Tensor,
    video_BVD: Tensor,
    video_mask_BV: Tensor,
    *,
    alpha: float,
    masked_outer_sum: bool,
    log_mean_exp: bool = False,
    tile_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the fine-grained similarity of all captions and clips in both directions.

    W1 (text to video) is the mean over a caption's tokens of alpha * log(sum over the clip's
    tokens of exp(cosine / alpha)), a smooth maximum of the cosines. W2 (video to text) has the
    roles of caption and clip exchanged.

    W1 and W2 can be differentiated once, with respect to the states of captions and clips. Memory
    is needed for these gradients and a few tiles. Forward waits for a GPU once, for the number of
    real tokens of every caption and clip. Backward never waits.

    Args:
        text_ATD: float [A, T, D], token states of captions. Half precision is computed in float32.
        text_mask_AT: bool [A, T], True = real. The similarities of a caption or clip without a
            real token are not finite.
        video_BVD: float [B, V, D], token states of clips.
        video_mask_BV: bool [B, V].
        alpha: smoothness of the maximum, at least `MIN_ALPHA` in float32.
        masked_outer_sum: True: padded positions also count in the outer sum, as in the released
            code. Their cosines are 0, so each adds alpha * log(number of the other side's real
            tokens), and the similarity depends on padding. False: they do not, as in the paper.
        log_mean_exp: True: the mean of the exponentials replaces their sum, so that the similarity
            does not grow with the length of the other side. Padded positions then add 0, and
            `masked_outer_sum` has no effect. The released code and the paper do not have this form.
        tile_bytes: approximate size of a tile. It does not change the result. None: a default for
            the device.
    Returns:
        W1 and W2, float [A, B] each.
    Source: Norton (arXiv 2401.16702), Eq. 5.
    """
    if tile_bytes is None:
        tile_bytes = (
            CPU_TILE_BYTES if text_ATD.device.type == "cpu" else DEVICE_TILE_BYTES
        )
    text_ATD = text_ATD.contiguous()
    video_BVD = video_BVD.contiguous()
    t2v_AB, v2t_AB = _TokenSimilarity.apply(  # type: ignore[no-untyped-call]
        text_ATD, text_mask_AT, video_BVD, video_mask_BV, alpha, tile_bytes
    )
    dtype = t2v_AB.dtype
    num_text_A1 = text_mask_AT.sum(1, keepdim=True).to(dtype)
    num_video_B = video_mask_BV.sum(1).to(dtype)
    # The similarity of a token to n tokens whose cosines are all 0.
    t2v_zero_B = alpha * num_video_B.log()
    v2t_zero_A1 = alpha * num_text_A1.log()
    if log_mean_exp:
        t2v_AB = t2v_AB - num_text_A1 * t2v_zero_B
        v2t_AB = v2t_AB - num_video_B * v2t_zero_A1
    elif masked_outer_sum:
        num_padded_A1 = text_mask_AT.shape[1] - num_text_A1
        num_padded_B = video_mask_BV.shape[1] - num_video_B
        t2v_AB = t2v_AB + num_padded_A1 * t2v_zero_B
        v2t_AB = v2t_AB + num_padded_B * v2t_zero_A1
    return t2v_AB / num_text_A1, v2t_AB / num_video_B
