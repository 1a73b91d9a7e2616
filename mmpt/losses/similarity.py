"""Similarities between all captions and all clips of a batch: pooled cosine, fine-grained score,
normalisation, blocks.

Rows are captions (a), columns are clips (b). Legend: A captions, B clips, T and V token positions,
D hidden size, L clips per sequence, S sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmpt.losses.tokenscore import token_score_sums


def pooled_similarity(text_AD: Tensor, video_BD: Tensor) -> Tensor:
    """Return the cosines of pooled states, float [A, B]; a zero vector gives nan."""
    text_AD = text_AD / torch.linalg.vector_norm(text_AD, dim=1, keepdim=True)
    video_BD = video_BD / torch.linalg.vector_norm(video_BD, dim=1, keepdim=True)
    return text_AD @ video_BD.T


def min_max(matrix: Tensor) -> Tensor:
    """Map the smallest entry to 0 and the largest to 1, with gradient through both; a constant
    matrix gives nan.

    Nothing is added to the denominator: a batch without contrast is an error that the loss's
    finiteness check reports. Source: released Norton code (not in the paper).
    """
    low = matrix.min()
    return (matrix - low) / (matrix.max() - low)


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
    exchanged.

    Args:
        text_ATD: float [A, T, D], caption token states.
        text_mask_AT: bool [A, T], True = real.
        video_BVD: float [B, V, D], clip token states.
        video_mask_BV: bool [B, V].
        alpha: smoothness of the maximum.
        masked_outer_sum: also count padded positions in the outer sum, as the released code does:
            their cosines are 0, so each adds alpha log n_v (W1) or alpha log n_t (W2), and the
            score depends on padding. False: the paper.
        tile_bytes: about how much memory a tile of token pairs takes; None: by device.
    Source: Norton (arXiv 2401.16702), Eq. 5.
    """
    t2v_AB, v2t_AB = token_score_sums(
        text_ATD, text_mask_AT, video_BVD, video_mask_BV, alpha, tile_bytes
    )
    num_text_A1 = text_mask_AT.sum(1, keepdim=True).to(t2v_AB.dtype)
    num_video_B = video_mask_BV.sum(1).to(t2v_AB.dtype)
    if masked_outer_sum:
        t2v_AB = t2v_AB + (text_mask_AT.shape[1] - num_text_A1) * (alpha * num_video_B.log())
        v2t_AB = v2t_AB + (video_mask_BV.shape[1] - num_video_B) * (alpha * num_text_A1.log())
    return t2v_AB / num_text_A1, v2t_AB / num_video_B


def bucket_value(similarity_BB: Tensor, ratio: float) -> Tensor:
    """Return rho, the k-th smallest similarity of a caption to its own clip, k = max(1, int(ratio *
    B)).

    That is the bottom `ratio` quantile (the comment in the released YAML says top, wrongly).
    Source: Norton, alignable prompt bucket.
    """
    diagonal_B = similarity_BB.detach().diagonal()
    return diagonal_B.kthvalue(max(1, int(ratio * len(diagonal_B)))).values


def sequence_blocks(similarity_BB: Tensor, length: int) -> Tensor:
    """View [B, B] as [S, S, L, L]: block (i, j) holds the captions of sequence i against the clips
    of sequence j.
    """
    num = len(similarity_BB) // length
    return similarity_BB.view(num, length, num, length).transpose(1, 2)
