"""Scores of paragraphs and whole videos: caption average, DTW, OTAM and optimal transport.

All are computed from the matrix of clip scores. A paragraph's captions are consecutive rows of it,
and a video's clips are consecutive columns, both in time order. So each pair of a paragraph and a
video has a block of the matrix. Paragraph i belongs to video i. Blocks of equal size are computed
together, so that nothing is padded but what the release pads.

DTW and OTAM use the negated score as the distance (TempCLR: one minus the score), and scale the
distances of a block by T*L/(S*W).

With `background`, a video consists of all its windows, with and without a caption. Before a
paragraph is aligned with it, the windows that are farthest from all captions are dropped. The
caption average does not need this.

Legend: R captions of p paragraphs, M clips (or windows) of all n videos, S captions and W clips of
a pair, k windows that are kept, P pairs, T captions of the longest paragraph, L clips of the
longest video.
Sources: TempCLR (arXiv 2212.13738); Norton (arXiv 2401.16702), section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.warping import Form, Size, dtw_cost, otam_cost
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

EPSILON = 1.0
"""Smoothness of the transport, in units of a score. The towers are trained with temperature 1."""
ITERATIONS = 50
"""Iterations of Sinkhorn's algorithm, as in the training losses."""
KEPT_PER_CAPTION = 1.3
"""Windows that are kept of a video with its background, as a share of the captions."""
BG_DTW_OFFSET = np.float32(3)

_CELLS_PER_CHUNK = 1 << 18  # of pairs' blocks: 1 MB of float32, so that they stay in cache
_SCORES_PER_CHUNK = 1 << 24  # 64 MB of float32
# A share of e^-300 is nothing, and the product of two such numbers still is a float64.
_LEAST_LOG = -300.0


@dataclass(frozen=True)
class Lengths:
    """The numbers of captions and clips."""

    captions: np.ndarray  # int64 [p]: per paragraph
    clips: np.ndarray  # int64 [n]: per video
    most: Size  # (T, L), over all paragraphs and videos

    @classmethod
    def of(cls, captions: np.ndarray, clips: np.ndarray | None = None) -> Lengths:
        """Returns the lengths of all paragraphs and videos; by default one clip per caption."""
        clips = captions if clips is None else clips
        return cls(captions, clips, (int(captions.max()), int(clips.max())))


class Grouping(NamedTuple):
    """The order of clips that the functions of this file need."""

    order: np.ndarray  # int64 [N]: take these rows (and columns)
    lengths: np.ndarray  # int64 [n]: clips per video
    videos: list[str]  # [n], in order of first appearance


Score = Callable[[np.ndarray, Lengths], np.ndarray]
"""Clip scores float32 [R, M] and lengths -> scores of paragraphs and videos, float [p, n]."""


def group_by_video(video_ids: Sequence[str], starts_s: Sequence[float]) -> Grouping:
    """Returns the order that groups clips by video.

    Videos are sorted by first appearance, and clips by start.

    Args:
        video_ids: the video of each clip [N].
        starts_s: start of each clip in seconds [N].
    """
    place = {video: index for index, video in enumerate(dict.fromkeys(video_ids))}
    group_N = np.array([place[video] for video in video_ids], dtype=np.int64)
    order_N = np.lexsort((np.asarray(starts_s), group_N))
    return Grouping(order_N, np.bincount(group_N, minlength=len(place)), list(place))


def paragraph_ranks(
    text_ND: np.ndarray, video_MD: np.ndarray, lengths: Lengths, scores: Mapping[str, Score]
) -> dict[str, np.ndarray]:
    """Returns the rank of each paragraph's own video (0 is best), by name of score.

    The clip scores of some paragraphs are computed at a time. They take about 64 MB, or more for a
    very long paragraph, because a paragraph is not divided.

    Args:
        text_ND: float32 vectors of all captions, grouped by video and in time order.
        video_MD: float32 vectors of all clips, likewise.
        scores: name -> function that scores paragraphs and videos.
    """
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    ends = np.cumsum(lengths.captions)
    # Paragraphs whose last captions fall into the same 64 MB of scores are computed together.
    chunk_of = ends * len(video_MD) // _SCORES_PER_CHUNK
    numbers = np.unique(chunk_of)
    for number in progress(numbers, len(numbers), "parts of the paragraphs scored", logger):
        first, last = np.flatnonzero(chunk_of == number)[[0, -1]]
        part = replace(lengths, captions=lengths.captions[first : last + 1])
        scores_RM = text_ND[ends[first] - lengths.captions[first] : ends[last]] @ video_MD.T
        for name, score in scores.items():
            ranks[name].append(ranks_from_scores(score(scores_RM, part), first))
    return {name: np.concatenate(parts) for name, parts in ranks.items()}


def caption_average(scores_RM: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Returns the mean over a paragraph's captions of the best score in a video, float [p, n]."""
    best_Rn = np.maximum.reduceat(scores_RM, _starts(lengths.clips), axis=1)
    sums_pn = np.add.reduceat(best_Rn, _starts(lengths.captions), axis=0)
    return sums_pn / lengths.captions[:, None].astype(scores_RM.dtype)


def dtw(
    scores_RM: np.ndarray, lengths: Lengths, form: Form = "released", *, background: bool = False
) -> np.ndarray:
    """Returns minus the cost of dynamic time warping of every pair, float32 [p, n].

    Args:
        form: see `dtw_cost`.
        background: keep the nearest windows only. As in the release, a distance is then 3 minus
            the score.
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        distance = nearest_windows(BG_DTW_OFFSET - scores_SWP) if background else -scores_SWP
        return -dtw_cost(distance * _scale(distance, lengths), lengths.most, form)

    return score_pairs(scores_RM, lengths, score)


def otam(
    scores_RM: np.ndarray, lengths: Lengths, form: Form = "released", *, background: bool = False
) -> np.ndarray:
    """Returns minus the ordered temporal alignment cost, paragraph to video plus video to
    paragraph, float32 [p, n].

    Args:
        form: see `otam_cost`.
        background: keep the nearest windows only. As in the release, distances are then scaled by
            max(T, L)/max(S, k).
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        distance, scale = -scores_SWP, _scale(scores_SWP, lengths)
        if background:
            distance = nearest_windows(distance)
            scale = np.float32(max(lengths.most) / max(distance.shape[:2]))
        return -otam_cost(distance * scale, lengths.most, form)

    return score_pairs(scores_RM, lengths, score)


def optimal_transport(
    scores_RM: np.ndarray, lengths: Lengths, epsilon: float = EPSILON, *, background: bool = False
) -> np.ndarray:
    """Returns the mean score under the plan that transports captions to clips, float32 [p, n].

    The plan does not depend on the order of captions or clips. This score is an extension. The
    release has a name for it, but prints zeros.

    Args:
        epsilon: smoothness of the plan.
        background: keep the nearest windows only.
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        kept_SkP = -nearest_windows(-scores_SWP) if background else scores_SWP
        return transport_score(kept_SkP, epsilon)

    return score_pairs(scores_RM, lengths, score)


def nearest_windows(distance_SWP: np.ndarray) -> np.ndarray:
    """Returns the distances of the windows that are nearest to any caption, float [S, k, P].

    int(1.3 * S) windows of a pair are kept, in time order. If two windows are equally near, the
    earlier one is kept. Videos with fewer windows keep all of them.
    """
    num_rows, num_cols = distance_SWP.shape[:2]
    num_kept = int(KEPT_PER_CAPTION * num_rows)
    if num_cols <= num_kept:
        return distance_SWP
    order_PW = np.argsort(distance_SWP.min(axis=0).T, axis=1, kind="stable")
    kept_kP = np.sort(order_PW[:, :num_kept], axis=1).T
    return np.take_along_axis(distance_SWP, kept_kP[None], axis=1)


def score_pairs(
    scores_RM: np.ndarray, lengths: Lengths, score: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns the score of every pair, float32 [p, n].

    Args:
        score: returns the scores [P] of P pairs from their blocks, float32 [S, W, P].
    """
    # For each number of captions S and of clips W, the blocks of all pairs of this size are
    # gathered into one array, pairs last. The functions that score them walk the cells of a block
    # and compute all pairs per cell.
    assert scores_RM.shape == (lengths.captions.sum(), lengths.clips.sum())
    row_starts, col_starts = _starts(lengths.captions), _starts(lengths.clips)
    result_pn = np.empty((len(row_starts), len(col_starts)), dtype=np.float32)
    for num_rows in np.unique(lengths.captions):
        for num_cols in np.unique(lengths.clips):
            these_i = np.flatnonzero(lengths.captions == num_rows)
            these_j = np.flatnonzero(lengths.clips == num_cols)
            num_cells = max(int(num_rows * num_cols), lengths.most[0] * lengths.most[1])
            # Some of these pairs are computed at a time, so that their blocks stay in the cache.
            num_pairs, step = len(these_i) * len(these_j), max(1, _CELLS_PER_CHUNK // num_cells)
            for begin in range(0, num_pairs, step):
                a_P, b_P = np.divmod(np.arange(begin, min(begin + step, num_pairs)), len(these_j))
                i_P, j_P = these_i[a_P], these_j[b_P]
                row_SP = row_starts[i_P] + np.arange(num_rows)[:, None]
                col_WP = col_starts[j_P] + np.arange(num_cols)[:, None]
                block_SWP = scores_RM[row_SP[:, None], col_WP].astype(np.float32, copy=False)
                result_pn[i_P, j_P] = score(block_SWP)
    return result_pn


def transport_score(
    scores_SWP: np.ndarray, epsilon: float = EPSILON, iterations: int = ITERATIONS
) -> np.ndarray:
    """Returns the mean score under the entropic transport plan of each pair, float64 [P].

    The plan Q transports uniform masses of sum 1, and the result is sum(Q * score). It is Q =
    diag(u) exp(score / epsilon) diag(v). Sinkhorn's algorithm finds u and v by updating the rows
    and then the columns. If all scores of a pair are equal, the result is exactly that score.

    Args:
        scores_SWP: float.
        epsilon: smoothness, in units of a score.
        iterations: number of updates of rows and columns.
    Source: Cuturi 2013; Norton (arXiv 2401.16702), section 3.2, without its bucket.
    """
    # Scale the kernel so that it neither overflows nor vanishes: u and v absorb the factors.
    best_P = scores_SWP.max(axis=(0, 1))
    below_SWP = scores_SWP.astype(np.float64) - best_P
    log_kernel_SWP = below_SWP / epsilon
    log_kernel_SWP -= log_kernel_SWP.max(axis=1, keepdims=True)
    log_v_WP = log_kernel_SWP.max(axis=0)
    log_kernel_SWP -= log_v_WP
    kernel_SWP, v_WP = (np.exp(np.maximum(log, _LEAST_LOG)) for log in (log_kernel_SWP, log_v_WP))
    num_rows, num_cols = kernel_SWP.shape[:2]
    for _ in range(iterations):
        u_SP = 1 / (num_rows * np.einsum("swp,wp->sp", kernel_SWP, v_WP))
        v_WP = 1 / (num_cols * np.einsum("swp,sp->wp", kernel_SWP, u_SP))
    return best_P + np.einsum("swp,swp,sp,wp->p", below_SWP, kernel_SWP, u_SP, v_WP)


def _scale(block_SWP: np.ndarray, lengths: Lengths) -> np.float32:
    num_rows, num_cols = block_SWP.shape[:2]
    return np.float32(lengths.most[0] * lengths.most[1] / (num_rows * num_cols))


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Returns the first row (or column) of each group."""
    return np.cumsum(lengths) - lengths
