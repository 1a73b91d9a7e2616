"""Moment retrieval as pure functions of arrays. The 21 moments are runs of five-second pieces.

There are two forms. The published form averages the score of a moment over all its seconds,
including padding. It leaves out moments that lie wholly in padding, even if people chose them. The
corrected form averages over real seconds. It ranks moments last whose last piece is only padding,
because a shorter moment has the same real seconds.

Moments with equal scores are ordered at random from a fixed seed, so that a model whose scores are
all equal is at chance. In the order of `MOMENTS`, such a model would be better than chance, because
people mark early and short moments more often.

Legend: N queries, S seconds (30), P pieces (6), M moments (21), A people who judged.
"""

from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from mmpt.endtasks.didemo.data import NUM_PIECES, Moment

Form = Literal["released", "corrected"]
PIECE_S = 5
NUM_SECONDS = NUM_PIECES * PIECE_S
MOMENTS: list[Moment] = [(piece, piece) for piece in range(NUM_PIECES)]
MOMENTS += combinations(range(NUM_PIECES), 2)
"""First and last piece of each moment, inclusive. The number of a moment is its position here."""
NUM_AGREEING = 3
"""Number of judgements of a query that count: the nearest ones. The others may be outliers."""

# What the functions below need to know about moments, as arrays that are computed once. A moment is
# an interval: it begins with its first piece and ends after its last one.
_FIRST_M, _LAST_M = np.array(MOMENTS).T
NUMBER_PP = np.full((NUM_PIECES, NUM_PIECES), -1)
"""Number of a moment, -1 where first > last."""
NUMBER_PP[_FIRST_M, _LAST_M] = np.arange(len(MOMENTS))
_END_M = _LAST_M + 1
_PIECE_S1 = np.arange(NUM_SECONDS)[:, None] // PIECE_S
_INSIDE_SM = (_PIECE_S1 >= _FIRST_M) & (_PIECE_S1 < _END_M)
INSIDE_SM = _INSIDE_SM.astype(np.float64)
"""1 where a second is in a moment, else 0."""
# Two intervals have in common what lies between the later beginning and the earlier end. The
# difference is negative if they are apart. If they overlap, their union is what lies between the
# earlier beginning and the later end.
_LATER_FIRST_MM = np.maximum.outer(_FIRST_M, _FIRST_M)
_EARLIER_END_MM = np.minimum.outer(_END_M, _END_M)
_COMMON_MM = (_EARLIER_END_MM - _LATER_FIRST_MM).clip(0)
_EARLIER_FIRST_MM = np.minimum.outer(_FIRST_M, _FIRST_M)
_LATER_END_MM = np.maximum.outer(_END_M, _END_M)
IOU_MM = _COMMON_MM / (_LATER_END_MM - _EARLIER_FIRST_MM)
"""Intersection over union of two moments."""


class Agreement(NamedTuple):
    """Agreement of a ranking with the judgements of each query."""

    ranks: np.ndarray
    """float64 [N]: mean of the smallest ranks (from 1) of chosen moments; infinite when none of
    them is ranked.
    """
    ious: np.ndarray
    """float64 [N]: mean of the largest intersections over union of the first moment with chosen
    ones.
    """


def moment_scores(
    second_scores_NS: np.ndarray, num_seconds_N: np.ndarray, form: Form
) -> np.ndarray:
    """Returns the mean score of each moment's seconds, float64 [N, M].

    The dot product with a mean of states is the mean of dot products, so states need not be kept.

    Args:
        second_scores_NS: float [N, S].
        num_seconds_N: int [N].
        form: `released`: of all seconds, padding included; `corrected`: of real ones, 0 for a
            moment without any.
    """
    if form == "released":
        sums_NM = second_scores_NS.astype(np.float64) @ INSIDE_SM
        return sums_NM / INSIDE_SM.sum(axis=0)
    real_NS = np.arange(NUM_SECONDS) < num_seconds_N[:, None]
    real_scores_NS = np.where(real_NS, second_scores_NS, 0).astype(np.float64)
    sums_NM = real_scores_NS @ INSIDE_SM
    num_real_NM = real_NS @ INSIDE_SM
    return sums_NM / num_real_NM.clip(1)


def rank_moments(
    scores_NM: np.ndarray, num_seconds_N: np.ndarray, form: Form
) -> np.ndarray:
    """Returns the numbers of the moments in order of falling scores, int64 [N, M].

    Args:
        scores_NM: float [N, M].
        num_seconds_N: int [N].
        form: `released`: moments whose first piece has no real second are left out; `corrected`:
            those whose last piece has none come last.
    """
    deciding_M = _FIRST_M if form == "released" else _LAST_M
    absent_NM = PIECE_S * deciding_M >= num_seconds_N[:, None]
    # Sort absent moments last, then by falling score, then at random.
    noise_NM = np.random.default_rng(0).random(scores_NM.shape)
    order_NM = np.lexsort((noise_NM, -scores_NM, absent_NM), axis=1)
    if form == "released":
        left_out_NM = np.take_along_axis(absent_NM, order_NM, axis=1)
        order_NM[left_out_NM] = -1
    return order_NM


def agreement(ranking_NM: np.ndarray, times_NA2: np.ndarray) -> Agreement:
    """Compares rankings with judgements: the mean over the `NUM_AGREEING` nearest judgements of
    each query.

    Args:
        ranking_NM: int [N, M], numbers of moments, best first, -1 at the end; the first is never
            -1.
        times_NA2: int [N, A, 2], first and last piece, -1 where there is no judgement; one at least
            per query.
    """
    first_NA, last_NA = np.moveaxis(times_NA2, 2, 0)
    judged_NA = first_NA >= 0
    chosen_NA = NUMBER_PP[first_NA, last_NA]
    # The rank of a chosen moment is its place in the ranking.
    equal_NAM = ranking_NM[:, None, :] == chosen_NA[:, :, None]
    ranked_NA = equal_NAM.any(axis=2) & judged_NA
    places_NA = equal_NAM.argmax(axis=2)
    ranks_NA = np.where(ranked_NA, places_NA + 1.0, np.inf)
    # Overlaps are negated, because the smallest values count and a missing one is infinite.
    best_N1 = ranking_NM[:, :1]
    overlaps_NA = IOU_MM[best_N1, chosen_NA]
    negated_NA = np.where(judged_NA, -overlaps_NA, np.inf)
    return Agreement(
        ranks=_mean_of_smallest(ranks_NA), ious=-_mean_of_smallest(negated_NA)
    )


def _mean_of_smallest(values_NA: np.ndarray) -> np.ndarray:
    """Returns the mean of each row's `NUM_AGREEING` smallest finite values, else infinity."""
    sorted_NA = np.sort(values_NA, axis=1)
    smallest = sorted_NA[:, :NUM_AGREEING]
    finite = np.isfinite(smallest)
    sums_N = np.where(finite, smallest, 0).sum(axis=1)
    counts_N = finite.sum(axis=1)
    means_N = sums_N / counts_N.clip(1)
    return np.where(counts_N > 0, means_N, np.inf)


def moment_metrics(ranking_NM: np.ndarray, times_NA2: np.ndarray) -> dict[str, float]:
    """Returns rank1, rank5 and miou, as fractions. `agreement` describes the arguments."""
    found = agreement(ranking_NM, times_NA2)
    return {
        "rank1": float((found.ranks <= 1).mean()),
        "rank5": float((found.ranks <= 5).mean()),
        "miou": float(found.ious.mean()),
    }
