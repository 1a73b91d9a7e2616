"""Which lengths to compute sequences at, so that few attention calls do for many: plain planning, no tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def choose_lengths(counts: Sequence[int], max_padding: float) -> list[int]:
    """Return the fewest lengths such that computing every sequence at the next one pads little.

    The best split of the lengths into k groups follows from the best splits of shorter ones into k - 1 (a dynamic
    programme); k grows until the padding is small enough. Of the splits into that many groups it is one of the least
    padding.

    Args:
        counts: number of sequences of each length, from length 0 on; those of length 0 are left out.
        max_padding: most padding slots, as a share of the real tokens; 0 gives every length that occurs.
    Returns:
        The chosen lengths, ascending; the last is the longest that occurs.
    """
    every = np.asarray(counts)
    lengths_L = np.flatnonzero(every[1:]) + 1
    if not len(lengths_L):
        return []
    pads_LL = _padding(lengths_L, every[lengths_L])
    least_L, starts = pads_LL[0], [np.zeros(len(lengths_L), dtype=np.int64)]
    allowed = max_padding * (lengths_L * every[lengths_L]).sum()
    while least_L[-1] > allowed:
        before_L = np.concatenate([[0], least_L[:-1]])  # of all lengths before this one, in one group less
        totals_LL = before_L[:, None] + pads_LL
        starts.append(totals_LL.argmin(axis=0))
        least_L = totals_LL.min(axis=0)
    chosen, last = [], len(lengths_L) - 1
    for start_L in reversed(starts):
        chosen.append(int(lengths_L[last]))
        last = int(start_L[last]) - 1
        if last < 0:
            break
    return chosen[::-1]


def _padding(lengths_L: np.ndarray, counts_L: np.ndarray) -> np.ndarray:
    """Return the padding of the group of the lengths from i to j at [i, j]; beyond any sum where there is none."""
    number_L = np.concatenate([[0], counts_L.cumsum()])
    tokens_L = np.concatenate([[0], (counts_L * lengths_L).cumsum()])
    start, end = np.ogrid[: len(lengths_L), : len(lengths_L)]
    pads_LL = (number_L[end + 1] - number_L[start]) * lengths_L - (tokens_L[end + 1] - tokens_L[start])
    return np.where(start <= end, pads_LL, np.int64(2) ** 52)
