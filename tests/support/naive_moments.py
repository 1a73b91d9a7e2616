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
    """Of each query: the mean of the three smallest ranks of chosen moments, and of the three
    largest IoUs of the best one.
    """
    ranks, ious = [], []
    for scores, seconds, chosen in zip(second_scores, num_seconds, times, strict=True):
        scored = []
        for a, b in itertools.combinations_with_replacement(range(6), 2):
            if 5 * (b if corrected else a) < seconds:
                end = min(5 * b + 5, seconds) if corrected else 5 * b + 5
                scored.append(
                    (float(np.mean(scores[5 * a : end], dtype=np.float64)), [a, b])
                )
        order = [moment for _, moment in sorted(scored, reverse=True)]
        moments = [list(moment) for moment in chosen]
        found = sorted(order.index(moment) + 1 for moment in moments if moment in order)
        ranks.append(np.mean(found[:3]) if found else 99)
        first = set(range(order[0][0], order[0][1] + 1))
        overlaps = [set(range(a, b + 1)) for a, b in moments]
        shares = sorted(len(first & other) / len(first | other) for other in overlaps)
        ious.append(np.mean(shares[-3:]))
    return {
        "rank1": float(np.mean(np.array(ranks) <= 1)),
        "rank5": float(np.mean(np.array(ranks) <= 5)),
        "miou": float(np.mean(ious)),
    }
