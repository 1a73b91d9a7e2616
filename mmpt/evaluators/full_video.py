"""Scores of paragraphs and whole videos: caption average, DTW, OTAM and optimal transport.

All are computed from the matrix of clip scores. A paragraph's captions are consecutive rows of it,
and a video's clips are consecutive columns, both in time order. So each pair of a paragraph and a
video has a block of the matrix. Paragraph i belongs to video i. Blocks of equal size are computed
together, so that padding is needed only where the release pads.

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

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mmpt.evaluators.functional import SCORES_PER_CHUNK, ranks_from_scores
from mmpt.evaluators.transport import EPSILON, transport_score
from mmpt.evaluators.warping import Form, Size, dtw_cost, otam_cost
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

KEPT_PER_CAPTION = 1.3
"""Number of windows per caption that are kept of a video with its background."""
BG_DTW_OFFSET = np.float32(3)

CELLS_PER_CHUNK = 1 << 18
"""Cells of the pairs' blocks that are computed at a time: 1 MB of float32, to stay in the cache."""


@dataclass(frozen=True)
class Lengths:
    """The numbers of captions and clips."""

    captions: np.ndarray  # int64 [p]: per paragraph
    clips: np.ndarray  # int64 [n]: per video
    maximum: Size  # (T, L), over all paragraphs and videos

    @classmethod
    def of(cls, captions: np.ndarray, clips: np.ndarray | None = None) -> Lengths:
        """Returns the lengths of all paragraphs and videos; by default one clip per caption."""
        if clips is None:
            clips = captions
        maximum = int(captions.max()), int(clips.max())
        return cls(captions, clips, maximum)


class Grouping(NamedTuple):
    """The order of clips that the functions of this file need."""

    order: np.ndarray  # int64 [N]: take these rows (and columns)
    lengths: np.ndarray  # int64 [n]: clips per video
    videos: list[str]  # [n], in order of first appearance


Score = Callable[[np.ndarray, Lengths], np.ndarray]
"""Clip scores float32 [R, M] and lengths -> scores of paragraphs and videos, float [p, n]."""
BlockScore = Callable[[np.ndarray], np.ndarray]
"""Blocks of P pairs, float32 [S, W, P] -> scores [P]."""


def group_by_video(video_ids: Sequence[str], starts_s: Sequence[float]) -> Grouping:
    """Returns the order that groups clips by video.

    Videos are sorted by first appearance, and clips by start.

    Args:
        video_ids: the video of each clip [N].
        starts_s: start of each clip in seconds [N].
    """
    videos = list(dict.fromkeys(video_ids))
    number_of = {video: number for number, video in enumerate(videos)}
    numbers = [number_of[video] for video in video_ids]
    order_N = np.lexsort((starts_s, numbers))
    lengths_n = np.bincount(numbers, minlength=len(videos))
    return Grouping(order_N, lengths_n, videos)


def paragraph_ranks(
    text_ND: np.ndarray,
    video_MD: np.ndarray,
    lengths: Lengths,
    scores: Mapping[str, Score],
    scores_per_chunk: int = SCORES_PER_CHUNK,
) -> dict[str, np.ndarray]:
    """Returns the rank of each paragraph's own video (0 is best), by name of score.

    Clip scores are computed for some paragraphs at a time, about `scores_per_chunk` at once. A very
    long paragraph may need more, because it is not divided.

    Args:
        text_ND: float32 vectors of all captions, grouped by video and in time order.
        video_MD: float32 vectors of all clips, likewise.
        scores: name -> function that scores paragraphs and videos.
    """
    ranks: dict[str, list[np.ndarray]] = defaultdict(list)
    ends = np.cumsum(lengths.captions)
    begins = ends - lengths.captions
    # Cut the rows of the matrix of clip scores into equal chunks. Paragraphs whose last captions
    # are in the same chunk are computed together.
    chunk_of = ends * len(video_MD) // scores_per_chunk
    chunks = np.unique(chunk_of)
    for chunk in progress(
        chunks, len(chunks), "parts of the paragraphs scored", logger
    ):
        inside = np.flatnonzero(chunk_of == chunk)
        first = inside[0]
        last = inside[-1]
        part = replace(lengths, captions=lengths.captions[inside])
        captions_RD = text_ND[begins[first] : ends[last]]
        scores_RM = captions_RD @ video_MD.T
        for name, score in scores.items():
            scores_pn = score(scores_RM, part)
            ranks[name].append(ranks_from_scores(scores_pn, first))
    return {name: np.concatenate(parts) for name, parts in ranks.items()}


def caption_average(scores_RM: np.ndarray, lengths: Lengths) -> np.ndarray:
    """Returns the mean over a paragraph's captions of the best score in a video, float [p, n]."""
    row_starts = _starts(lengths.captions)
    col_starts = _starts(lengths.clips)
    best_Rn = np.maximum.reduceat(scores_RM, col_starts, axis=1)
    sums_pn = np.add.reduceat(best_Rn, row_starts, axis=0)
    num_captions_p = lengths.captions.astype(scores_RM.dtype)
    return sums_pn / num_captions_p[:, None]


def dtw(
    scores_RM: np.ndarray,
    lengths: Lengths,
    form: Form = "released",
    *,
    background: bool = False,
) -> np.ndarray:
    """Returns minus the cost of dynamic time warping of every pair, float32 [p, n].

    Args:
        form: see `dtw_cost`.
        background: keep the nearest windows only. As in the release, a distance is then 3 minus
            the score.
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        distance_SkP = -scores_SWP
        if background:
            distance_SkP = nearest_windows(BG_DTW_OFFSET - scores_SWP)
        scale = _scale(distance_SkP, lengths)
        return -dtw_cost(distance_SkP * scale, lengths.maximum, form)

    return score_pairs(scores_RM, lengths, score)


def otam(
    scores_RM: np.ndarray,
    lengths: Lengths,
    form: Form = "released",
    *,
    background: bool = False,
) -> np.ndarray:
    """Returns minus the ordered temporal alignment cost, paragraph to video plus video to
    paragraph, float32 [p, n].

    Args:
        form: see `otam_cost`.
        background: keep the nearest windows only. As in the release, distances are then scaled by
            max(T, L)/max(S, k).
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        distance_SkP = -scores_SWP
        if background:
            distance_SkP = nearest_windows(distance_SkP)
            longer_side = max(distance_SkP.shape[:2])
            scale = np.float32(max(lengths.maximum) / longer_side)
        else:
            scale = _scale(distance_SkP, lengths)
        return -otam_cost(distance_SkP * scale, lengths.maximum, form)

    return score_pairs(scores_RM, lengths, score)


def optimal_transport(
    scores_RM: np.ndarray,
    lengths: Lengths,
    epsilon: float = EPSILON,
    *,
    background: bool = False,
) -> np.ndarray:
    """Returns the mean score under the plan that transports captions to clips, float32 [p, n].

    The plan does not depend on the order of captions or clips. This score is an extension. The
    release has a name for it, but prints zeros.

    Args:
        epsilon: smoothness of the plan.
        background: keep the nearest windows only.
    """

    def score(scores_SWP: np.ndarray) -> np.ndarray:
        if background:
            scores_SWP = -nearest_windows(-scores_SWP)
        return transport_score(scores_SWP, epsilon)

    return score_pairs(scores_RM, lengths, score)


def nearest_windows(distance_SWP: np.ndarray) -> np.ndarray:
    """Returns the distances of the windows that are nearest to any caption, float [S, k, P].

    int(1.3 * S) windows of a pair are kept, in time order. If two windows are equally near, the
    earlier one is kept. Videos with fewer windows keep all of them.
    """
    num_rows, num_cols, _ = distance_SWP.shape
    num_kept = int(KEPT_PER_CAPTION * num_rows)
    if num_cols <= num_kept:
        return distance_SWP
    nearest_PW = distance_SWP.min(axis=0).T
    order_PW = np.argsort(nearest_PW, axis=1, kind="stable")
    nearest_Pk = order_PW[:, :num_kept]
    kept_Pk = np.sort(nearest_Pk, axis=1)
    return np.take_along_axis(distance_SWP, kept_Pk.T[None], axis=1)


def score_pairs(
    scores_RM: np.ndarray,
    lengths: Lengths,
    score: BlockScore,
    cells_per_chunk: int = CELLS_PER_CHUNK,
) -> np.ndarray:
    """Returns the score of every pair, float32 [p, n].

    Args:
        score: scores the blocks of pairs of equal size.
        cells_per_chunk: see `_pairs_of_equal_size`.
    """
    assert scores_RM.shape == (lengths.captions.sum(), lengths.clips.sum())
    row_starts = _starts(lengths.captions)
    col_starts = _starts(lengths.clips)
    size = len(row_starts), len(col_starts)
    result_pn = np.empty(size, dtype=np.float32)
    for i_P, j_P in _pairs_of_equal_size(lengths, cells_per_chunk):
        # Gather the blocks of the pairs into one array, pairs last. The functions that score them
        # walk the cells of a block and compute all pairs per cell.
        num_rows = lengths.captions[i_P[0]]
        num_cols = lengths.clips[j_P[0]]
        row_S = np.arange(num_rows)
        col_W = np.arange(num_cols)
        row_SP = np.add.outer(row_S, row_starts[i_P])
        col_WP = np.add.outer(col_W, col_starts[j_P])
        block_SWP = scores_RM[row_SP[:, None], col_WP]
        block_SWP = block_SWP.astype(np.float32, copy=False)
        result_pn[i_P, j_P] = score(block_SWP)
    return result_pn


def _pairs_of_equal_size(
    lengths: Lengths, cells_per_chunk: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields all pairs in chunks whose blocks have one size: paragraphs i [P] and videos j [P].

    Args:
        cells_per_chunk: largest number of cells in the blocks of a chunk, including the padding of
            the release. A chunk has at least one pair.
    """
    # No block is larger than the padded one.
    cells_per_pair = math.prod(lengths.maximum)
    pairs_per_chunk = max(1, cells_per_chunk // cells_per_pair)
    for num_rows in np.unique(lengths.captions):
        paragraphs = np.flatnonzero(lengths.captions == num_rows)
        for num_cols in np.unique(lengths.clips):
            videos = np.flatnonzero(lengths.clips == num_cols)
            num_pairs = len(paragraphs) * len(videos)
            for begin in range(0, num_pairs, pairs_per_chunk):
                end = min(begin + pairs_per_chunk, num_pairs)
                # Pairs are numbered paragraph by paragraph.
                number_P = np.arange(begin, end)
                row_P, col_P = np.divmod(number_P, len(videos))
                yield paragraphs[row_P], videos[col_P]


def _scale(block_SWP: np.ndarray, lengths: Lengths) -> np.float32:
    """Returns T*L/(S*W), the factor of a block's distances in DTW and OTAM."""
    num_rows, num_cols, _ = block_SWP.shape
    largest = math.prod(lengths.maximum)
    return np.float32(largest / (num_rows * num_cols))


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Returns the first row (or column) of each group."""
    return np.cumsum(lengths) - lengths
