"""Metrics of moment retrieval in plain loops, written from the definitions."""

import itertools
from collections.abc import Sequence

import numpy as np


def naive_metrics(
    second_scores: Sequence[Sequence[float]],
    num_seconds: Sequence[int],
    times: Sequence[Sequence[Sequence[int]]],
    *,
    corrected: bool,
) -> dict[str, float]:
    """Returns `rank1`, `rank5` and `miou` of some queries.

    A moment is a run of the six five-second pieces of a video. Its score is the mean score of its
    seconds. The rank of a query is the mean of the three lowest ranks of the moments that the
    annotators chose. Its IoU is the mean of the three highest IoUs of these with the best moment.

    Args:
        second_scores: for each query, the scores of 30 seconds, with padding.
        num_seconds: for each query, the real seconds of its video.
        times: for each query, the first and last pieces of the chosen moments.
        corrected: leave out padded seconds, and moments whose last piece has no real second.
            The released form leaves out only moments whose first piece has no real second.
    """
    ranks, ious = [], []
    for scores, seconds, chosen in zip(second_scores, num_seconds, times, strict=True):
        # Scores of all moments from piece a to piece b.
        scored = []
        for a, b in itertools.combinations_with_replacement(range(6), 2):
            if 5 * (b if corrected else a) < seconds:
                end = min(5 * b + 5, seconds) if corrected else 5 * b + 5
                scored.append(
                    (float(np.mean(scores[5 * a : end], dtype=np.float64)), [a, b])
                )
        # The ranks of the chosen moments. 99 stands for a query whose moments are all left out.
        order = [moment for _, moment in sorted(scored, reverse=True)]
        moments = [list(moment) for moment in chosen]
        found = sorted(order.index(moment) + 1 for moment in moments if moment in order)
        ranks.append(np.mean(found[:3]) if found else 99)
        # The IoUs of the best moment, as sets of pieces.
        first = set(range(order[0][0], order[0][1] + 1))
        overlaps = [set(range(a, b + 1)) for a, b in moments]
        shares = sorted(len(first & other) / len(first | other) for other in overlaps)
        ious.append(np.mean(shares[-3:]))
    return {
        "rank1": float(np.mean(np.array(ranks) <= 1)),
        "rank5": float(np.mean(np.array(ranks) <= 5)),
        "miou": float(np.mean(ious)),
    }
