"""Statistics of features and captions: pure functions of arrays, and tallies that can be merged.

Legend: V videos, C captions of all of them, R feature rows (seconds), W slots of word pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Tally:
    """Count, sum, extremes and a histogram of values that are never kept; tallies of parts merge
    into the whole's.
    """

    def __init__(self, edges: Sequence[float] | np.ndarray):
        """Args: edges, ascending bounds of the bins; values beyond them count in the first or last
        bin.
        """
        self.edges = np.asarray(edges, dtype=np.float64)
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)
        self.count = 0
        self.total = 0.0
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Counts finite values, any shape."""
        if values.size == 0:
            return
        self.count += values.size
        self.total += float(values.sum(dtype=np.float64))
        self.low, self.high = (
            min(self.low, float(values.min())),
            max(self.high, float(values.max())),
        )
        self.counts += np.histogram(np.clip(values, self.edges[0], self.edges[-1]), self.edges)[0]

    def merge(self, other: Tally) -> None:
        """Counts everything that `other`, of the same edges, has counted."""
        assert np.array_equal(self.edges, other.edges)
        self.counts += other.counts
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def mean(self) -> float:
        """Mean of all values; NaN of none."""
        return self.total / self.count if self.count else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON; null where nothing was counted."""
        some = self.count > 0
        return {
            "count": self.count,
            "mean": self.mean if some else None,
            "min": self.low if some else None,
            "max": self.high if some else None,
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
        }


def caption_seconds(
    starts_C: np.ndarray, ends_C: np.ndarray, owners_C: np.ndarray, seconds_V: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns how long the captions of every video are inside it: added up, and as a union.

    Args:
        starts_C: finite seconds, in any order inside a video.
        ends_C: finite seconds; an end before its start counts as empty.
        owners_C: int, non-decreasing: the video of each caption.
        seconds_V: length of every video.
    Returns:
        float64 [V]: sum of durations inside the video; float64 [V]: seconds with at least one
            caption.
    """
    lengths_C = seconds_V.astype(np.float64)[owners_C]
    starts_C = np.clip(starts_C.astype(np.float64), 0, lengths_C)
    ends_C = np.maximum(np.clip(ends_C.astype(np.float64), 0, lengths_C), starts_C)
    order_C = np.lexsort((starts_C, owners_C))
    owners_C = owners_C[order_C]
    # Videos are placed one after another on a line, so that one running maximum serves all.
    offsets_V = np.concatenate([[0.0], np.cumsum(seconds_V.astype(np.float64) + 1)])[:-1]
    starts_C, ends_C = (
        starts_C[order_C] + offsets_V[owners_C],
        ends_C[order_C] + offsets_V[owners_C],
    )
    before_C = np.maximum.accumulate(np.concatenate([[-1.0], ends_C]))[:-1]
    new_C = np.maximum(ends_C - np.maximum(starts_C, before_C), 0)
    num_videos = len(seconds_V)
    spoken_V = np.bincount(owners_C, weights=ends_C - starts_C, minlength=num_videos)
    return spoken_V, np.bincount(owners_C, weights=new_C, minlength=num_videos)


def num_unordered(starts_C: np.ndarray, owners_C: np.ndarray) -> int:
    """Returns how many captions start before the previous caption of the same video."""
    return int(((starts_C[1:] < starts_C[:-1]) & (owners_C[1:] == owners_C[:-1])).sum())
