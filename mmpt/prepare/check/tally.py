"""One statistic of the table, and a running histogram that gives it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Statistic(NamedTuple):
    """One number of the table."""

    text: str
    """The number as shown."""
    value: float | None = None
    """The mean, median, count or share in percent that has a plausible range; None: it has none."""
    unit: str = ""
    """Unit of the plausible range."""


class Tally:
    """A running histogram, with count, sum and extremes. Values are not kept.

    Args:
        edges: edges of the bins, ascending.
    """

    def __init__(self, edges: np.ndarray):
        self.edges = edges
        num_bins = len(edges) - 1
        self.counts = np.zeros(num_bins, dtype=np.int64)
        self.count = 0
        self.total = 0.0
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Adds finite values, of any shape."""
        if not values.size:
            return
        self.count += values.size
        self.total += float(values.sum(dtype=np.float64))
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        # Values outside count in the first or last bin.
        first, last = self.edges[[0, -1]]
        clipped = np.clip(values, first, last)
        counts, _ = np.histogram(clipped, self.edges)
        self.counts += counts

    def merge(self, other: Tally) -> None:
        """Adds the values of another tally with the same edges."""
        self.counts += other.counts
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float | None:
        """The mean of all values; None if there are none."""
        if not self.count:
            return None
        return self.total / self.count

    def share_and_median(
        self, low: float = -np.inf, high: float = np.inf
    ) -> tuple[float, float]:
        """Returns the share of the values from `low` to `high`, and the median of these values.

        Both are as exact as the bins. Without such values, the share is 0 and the median has no
        meaning.
        """
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        is_inside = (centres >= low) & (centres <= high)
        counts = np.where(is_inside, self.counts, 0)
        num_inside = counts.sum()
        share = float(num_inside) / max(self.count, 1)
        # The median is in the bin in which the cumulative count reaches a half.
        middle = np.searchsorted(counts.cumsum(), num_inside / 2)
        return share, float(centres[middle])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON. Mean and extremes are None if there are no values."""
        return {
            "count": self.count,
            "mean": self.mean,
            "min": self.low if self.count else None,
            "max": self.high if self.count else None,
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
        }

    def statistic(self, digits: int) -> Statistic:
        """Returns the mean, shown with the extremes.

        Args:
            digits: number of decimals.
        """
        if self.mean is None:
            return Statistic("-")
        mean = f"{self.mean:.{digits}f}"
        low = f"{self.low:.{digits}f}"
        high = f"{self.high:.{digits}f}"
        return Statistic(f"{mean} ({low} to {high})", self.mean)
