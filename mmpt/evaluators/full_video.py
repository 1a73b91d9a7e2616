"""Scores between paragraphs and whole videos from clip scores: caption average, DTW and OTAM, for all pairs at once.

Dynamic programmes walk the cells of one alignment and treat many pairs per cell, so arrays are cells first.
Legend: N clips (and captions) in all, n videos, L clips of the longest video, P pairs (paragraph i, video j) in a
chunk, R rows (captions), K columns (clips). The clips of video v are `lengths[v]` consecutive rows and columns.

`released` reproduces the published numbers with their padding defects; `corrected` aligns each pair's own block.
Both scale a block's distances by L*L/(l_i*l_j) and use the negated score as the distance (TempCLR: one minus it).
Sources: TempCLR (arXiv 2212.13738) for the protocol, OTAM (arXiv 1906.11415), Norton (arXiv 2401.16702).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Form = Literal["released", "corrected"]

_PAIRS_PER_CHUNK = 4096  # 16 x 18 cells of float32 make 5 MB: a chunk stays in cache
_F32 = np.float32


class Grouping(NamedTuple):
    """How to put clips in order for this file's functions."""

    order: np.ndarray  # int64 [N]: take these rows (and columns)
    lengths: np.ndarray  # int64 [n]: clips per video
    videos: list[str]  # [n], in order of first appearance


def group_by_video(video_ids: Sequence[str], starts_s: Sequence[float] | None = None) -> Grouping:
    """Bring the clips of each video together, videos by first appearance, clips by start (or as given).

    Args:
        video_ids: the video of each clip [N].
        starts_s: begin of each clip in seconds [N], to put a video's clips in time order.
    """
    assert starts_s is None or len(starts_s) == len(video_ids)
    place = {video: index for index, video in enumerate(dict.fromkeys(video_ids))}
    group_N = np.array([place[video] for video in video_ids], dtype=np.int64)
    time_N = np.zeros(len(group_N)) if starts_s is None else np.asarray(starts_s, dtype=np.float64)
    return Grouping(np.lexsort((time_N, group_N)), np.bincount(group_N, minlength=len(place)), list(place))


def caption_average(scores_NN: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the mean over paragraph i's captions of the best score among video j's clips.

    Args:
        scores_NN: float [N, N], captions x clips, grouped by video.
        lengths: int [n], clips per video.
    Returns:
        float [n, n], rows are paragraphs, columns are videos.
    """
    starts = _starts(scores_NN, lengths)
    best_Nn = np.maximum.reduceat(scores_NN, starts, axis=1)
    return np.add.reduceat(best_Nn, starts, axis=0) / lengths[:, None].astype(scores_NN.dtype)


def dtw(scores_NN: np.ndarray, lengths: np.ndarray, form: Form = "released") -> np.ndarray:
    """Return minus the cost of dynamic time warping between every paragraph and every video.

    Args:
        scores_NN: float [N, N], captions x clips, grouped by video and in time order.
        lengths: int [n], clips per video.
        form: `released` pads every block to L x L, which lets a path skip the last cell and wipes the last row against
            videos of L clips; `corrected` ends in the block's own last cell.
    Returns:
        float32 [n, n], rows are paragraphs, columns are videos.
    """
    _check_form(form)

    def cost(block_RKP: np.ndarray, rows_P: np.ndarray, cols_P: np.ndarray) -> np.ndarray:
        if form == "released":
            return cumulate_dtw(pad_dtw(block_RKP, rows_P, cols_P))[-1, -1]
        return cumulate_dtw(block_RKP)[rows_P - 1, cols_P - 1, np.arange(len(rows_P))]

    return -_pair_costs(scores_NN, lengths, cost)


def otam(scores_NN: np.ndarray, lengths: np.ndarray, form: Form = "released") -> np.ndarray:
    """Return minus the ordered temporal alignment cost, paragraph to video plus video to paragraph.

    Args:
        scores_NN: float [N, N], captions x clips, grouped by video and in time order.
        lengths: int [n], clips per video.
        form: `released` pads as `dtw` does and subtracts the minimum in the first column; `corrected` adds it and ends
            in the block's own last cell.
    Returns:
        float32 [n, n], rows are paragraphs, columns are videos.
    """
    _check_form(form)

    def cost(block_RKP: np.ndarray, rows_P: np.ndarray, cols_P: np.ndarray) -> np.ndarray:
        if form == "released":
            return cumulate_otam(pad_otam(block_RKP, rows_P, cols_P), first_sign=-1)[-1, -1]
        total = cumulate_otam(add_border(block_RKP, cols_P), first_sign=1, last_P=cols_P + 1)
        return total[rows_P - 1, cols_P + 1, np.arange(len(rows_P))]

    return -(_pair_costs(scores_NN, lengths, cost) + _pair_costs(scores_NN.T, lengths, cost).T)


def pad_dtw(block_RKP: np.ndarray, rows_P: np.ndarray, cols_P: np.ndarray) -> np.ndarray:
    """Pad blocks as the release does: inf around, then zeros from the last real row on in the padded columns.

    A block without padded columns gets the zeros in *all* columns, which wipes its last real row.

    Args:
        block_RKP: float32 distances; only the first rows_P x cols_P cells of a pair are looked at.
        rows_P, cols_P: int [P], the real size of each block.
    """
    row, col = _cells(block_RKP)
    padded_RKP = np.where((row < rows_P) & (col < cols_P), block_RKP, _F32(np.inf))
    zero_from_P = np.where(cols_P < block_RKP.shape[1], cols_P, 0)
    padded_RKP[(row >= rows_P - 1) & (col >= zero_from_P)] = 0
    return padded_RKP


def pad_otam(block_RKP: np.ndarray, rows_P: np.ndarray, cols_P: np.ndarray) -> np.ndarray:
    """Pad blocks as `pad_dtw` does, after a zero column left and right of each block: [R, K + 2, P]."""
    bordered_RKP = add_border(block_RKP, cols_P)
    row, col = _cells(bordered_RKP)
    padded_RKP = np.where(row < rows_P, bordered_RKP, _F32(np.inf))
    zero_from_P = np.where(cols_P < block_RKP.shape[1], cols_P + 2, 0)
    padded_RKP[(row >= rows_P - 1) & (col >= zero_from_P)] = 0
    return padded_RKP


def add_border(block_RKP: np.ndarray, cols_P: np.ndarray) -> np.ndarray:
    """Put a zero column left and right of each block's real columns, inf beyond: [R, K + 2, P]."""
    num_rows, num_cols, num_pairs = block_RKP.shape
    bordered_RKP = np.full((num_rows, num_cols + 2, num_pairs), np.inf, dtype=_F32)
    bordered_RKP[:, 1:-1] = np.where(np.arange(num_cols)[:, None] < cols_P, block_RKP, _F32(np.inf))
    bordered_RKP[:, 0] = 0
    bordered_RKP[:, cols_P + 1, np.arange(num_pairs)] = 0
    return bordered_RKP


def cumulate_dtw(distance_RKP: np.ndarray) -> np.ndarray:
    """Return the cost of the best path from the first cell to every cell, by steps right, down and diagonal."""
    total_RKP = np.empty_like(distance_RKP)
    total_RKP[0] = np.cumsum(distance_RKP[0], axis=0)
    total_RKP[:, 0] = np.cumsum(distance_RKP[:, 0], axis=0)
    for r in range(1, distance_RKP.shape[0]):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        diagonal_or_up_KP = np.minimum(above_KP[:-1], above_KP[1:])
        for c in range(1, distance_RKP.shape[1]):
            here_KP[c] = distance_RKP[r, c] + np.minimum(diagonal_or_up_KP[c - 1], here_KP[c - 1])
    return total_RKP


def cumulate_otam(
    distance_RKP: np.ndarray, *, first_sign: Literal[-1, 1], last_P: np.ndarray | int | None = None
) -> np.ndarray:
    """Return OTAM's cumulative costs O (hard minimum), where a path goes straight down in the border columns only.

    O[0, c] = d[0, c] + O[0, c-1]; column 0 is 0; then O[r, c] = d[r, c] + min(O[r-1, c-1], O[r, c-1]), and in column 1
    (there times `first_sign`) and the last column the minimum also takes O[r-1, c].

    Args:
        distance_RKP: float32, distances with their border columns.
        first_sign: what the minimum in column 1 is multiplied with: 1, or -1 as the release has it.
        last_P: int, column of each pair's right border; the last column if not given.
    """
    num_rows, num_cols = distance_RKP.shape[:2]
    last_P = num_cols - 1 if last_P is None else last_P
    total_RKP = np.zeros_like(distance_RKP)
    total_RKP[0, 1:] = np.cumsum(distance_RKP[0, 1:], axis=0)
    for r in range(1, num_rows):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        here_KP[1] = distance_RKP[r, 1] + first_sign * np.minimum(above_KP[1], 0)  # column 0 costs nothing
        for c in range(2, num_cols):
            down_P = np.where(c == last_P, above_KP[c], _F32(np.inf))
            here_KP[c] = distance_RKP[r, c] + np.minimum(np.minimum(above_KP[c - 1], here_KP[c - 1]), down_P)
    return total_RKP


def _pair_costs(
    scores_NN: np.ndarray, lengths: np.ndarray, cost: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return float32 [n, n] of `cost(block_LLP, rows_P, cols_P)` of every pair's scaled distance block."""
    starts = _starts(scores_NN, lengths)
    num_videos, longest, last = len(lengths), int(lengths.max()), len(scores_NN) - 1
    step_L = np.arange(longest)[:, None]
    costs = np.empty(num_videos * num_videos, dtype=_F32)
    for begin in range(0, len(costs), _PAIRS_PER_CHUNK):
        pairs = np.arange(begin, min(begin + _PAIRS_PER_CHUNK, len(costs)))
        i, j = np.divmod(pairs, num_videos)
        row_LP, col_LP = (np.minimum(starts[side] + step_L, last) for side in (i, j))
        scale_P = (longest * longest / (lengths[i] * lengths[j])).astype(_F32)
        block_LLP = scores_NN[row_LP[:, None], col_LP[None]].astype(_F32) * -scale_P
        costs[pairs] = cost(block_LLP, lengths[i], lengths[j])
    return costs.reshape(num_videos, num_videos)


def _starts(scores_NN: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the first row of each video."""
    assert scores_NN.shape == (lengths.sum(), lengths.sum()), (scores_NN.shape, lengths)
    assert lengths.min() > 0, lengths
    return np.cumsum(lengths) - lengths


def _cells(array_RKP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row numbers [R, 1, 1] and column numbers [1, K, 1]."""
    return np.arange(array_RKP.shape[0])[:, None, None], np.arange(array_RKP.shape[1])[None, :, None]


def _check_form(form: str) -> None:
    assert form in get_args(Form), form
