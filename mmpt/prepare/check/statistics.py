"""Statistics of features and captions, gathered shard by shard and merged.

Legend: V videos, C captions of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.utils.io import atomic_write

EDGES: dict[str, np.ndarray] = {
    "seconds of a video": np.linspace(0, 1800, 61),
    "captions per minute": np.linspace(0, 40, 41),
    "seconds of a caption": np.linspace(0, 30, 61),
    "word pieces of a caption": np.linspace(-0.5, 64.5, 66),
    "share of a video with captions": np.linspace(0, 1, 41),
    "length of a feature row": np.linspace(0, 2, 81),
}
"""What is tallied -> bounds of the bins. Values outside count in the first or last bin."""


class Tally:
    """Count, sum, extremes and a histogram of values, which are not kept."""

    def __init__(self, edges: np.ndarray):
        self.edges = edges
        self.counts = np.zeros(len(edges) - 1, dtype=np.int64)
        self.count = 0
        self.total = 0.0
        self.low = np.inf
        self.high = -np.inf

    def add(self, values: np.ndarray) -> None:
        """Counts finite values, any shape."""
        if not values.size:
            return
        self.count += values.size
        self.total += float(values.sum(dtype=np.float64))
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))
        self.counts += np.histogram(np.clip(values, self.edges[0], self.edges[-1]), self.edges)[0]

    def merge(self, other: Tally) -> None:
        """Counts everything that `other`, of the same edges, has counted."""
        self.counts += other.counts
        self.count += other.count
        self.total += other.total
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)

    @property
    def mean(self) -> float | None:
        """Mean of all values; None if there are none."""
        return self.total / self.count if self.count else None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON; null where nothing was counted."""
        return {
            "count": self.count,
            "mean": self.mean,
            "min": self.low if self.count else None,
            "max": self.high if self.count else None,
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
        }

    def range(self, digits: int) -> str:
        """Returns mean and extremes for a table."""
        if self.mean is None:
            return "-"
        return f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass
class SplitStatistics:
    """Counts and tallies of the listed videos of the shards that were read."""

    listed: int = 0
    repeated: int = 0  # lines of the list that repeat an earlier one
    in_both: int = 0  # ids that stand in both lists
    not_packed: int = 0  # listed ids that are in no shard
    shards: int = 0
    shards_read: int = 0
    videos: int = 0  # listed videos in the shards that were read
    without_captions: int = 0
    seconds: int = 0
    captions: int = 0
    pieces: int = 0
    spoken_s: float = 0.0  # sum of the durations of captions
    inside_s: float = 0.0  # the same, cut to the videos
    covered_s: float = 0.0  # seconds with at least one caption
    reversed: int = 0  # captions that end before they start
    negative: int = 0  # captions that start before their video
    late: int = 0  # captions that start after their video
    unordered: int = 0
    empty: int = 0  # captions without a word piece
    unknown_pieces: int = 0  # ids that the vocabulary does not have
    nan: int = 0  # numbers, in features
    infinite: int = 0
    tallies: dict[str, Tally] = field(
        default_factory=lambda: {name: Tally(edges) for name, edges in EDGES.items()}
    )

    def merge(self, other: SplitStatistics) -> None:
        """Adds everything that `other` has counted."""
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])
        for one in fields(self):
            if one.name != "tallies":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        tallies = {name: tally.to_dict() for name, tally in self.tallies.items()}
        return vars(self) | {"tallies": tallies}

    def rows(self) -> dict[str, str]:
        """Returns what a table shows: title -> text."""
        return {
            "listed videos": f"{self.listed:,}",
            "  repeated lines": f"{self.repeated:,}",
            "  also in the other list": f"{self.in_both:,}",
            "  not packed": _part(self.not_packed, self.listed),
            "shards read": f"{self.shards_read:,} of {self.shards:,}",
            "videos": f"{self.videos:,}",
            "  without captions": _part(self.without_captions, self.videos),
            "hours": f"{self.seconds / 3600:,.1f}",
            "seconds of a video": self.tallies["seconds of a video"].range(0),
            "captions": f"{self.captions:,}",
            "  per minute": f"{60 * self.captions / self.seconds:.1f}" if self.seconds else "-",
            "  without a word": _part(self.empty, self.captions),
            "  end before they start": _part(self.reversed, self.captions),
            "  start before their video": _part(self.negative, self.captions),
            "  start after their video": _part(self.late, self.captions),
            "  out of order": _part(self.unordered, self.captions),
            "tokens": f"{self.pieces:,}",
            "  of a caption": self.tallies["word pieces of a caption"].range(1),
            "  not in the vocabulary": f"{self.unknown_pieces:,}",
            "video time with captions": _share(self.covered_s, self.seconds),
            "caption time on other captions": _share(self.inside_s - self.covered_s, self.inside_s),
            "caption time outside the video": _share(self.spoken_s - self.inside_s, self.spoken_s),
            "length of a feature row": self.tallies["length of a feature row"].range(3),
            "  NaN": f"{self.nan:,}",
            "  infinite": f"{self.infinite:,}",
        }


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({_share(count, whole)})" if count else "0"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


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
    starts_C = starts_C[order_C] + offsets_V[owners_C]
    ends_C = ends_C[order_C] + offsets_V[owners_C]
    before_C = np.maximum.accumulate(np.concatenate([[-1.0], ends_C]))[:-1]
    new_C = np.maximum(ends_C - np.maximum(starts_C, before_C), 0)
    num_videos = len(seconds_V)
    spoken_V = np.bincount(owners_C, weights=ends_C - starts_C, minlength=num_videos)
    return spoken_V, np.bincount(owners_C, weights=new_C, minlength=num_videos)


def save_histograms(path: str | Path, splits: Mapping[str, SplitStatistics]) -> None:
    """Draws every tally as the share of values per bin, a line per split, and writes `path`.

    Args:
        splits: split name -> its statistics.
    """
    from matplotlib.figure import Figure  # deferred: a second, and only figures need it

    figure = Figure(figsize=(12, 6), layout="constrained")
    for axis, name in zip(figure.subplots(2, 3).flat, EDGES, strict=True):
        for split, statistics in splits.items():
            tally = statistics.tallies[name]
            if tally.count:
                shares = tally.counts / tally.count
                label = f"{split}: mean {tally.mean:.3g}"
                axis.stairs(shares, tally.edges, label=label, fill=len(splits) == 1, alpha=0.8)
                axis.legend(fontsize="small")
        axis.set_xlabel(name)
        axis.set_ylabel("share")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
