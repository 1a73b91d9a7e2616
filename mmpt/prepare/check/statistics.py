"""Statistics of features and captions, gathered shard by shard and merged.

Legend: V videos, C captions of all of them, R feature rows, D their columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.utils.io import atomic_write

BLOCK_ROWS = 8192  # 16 MB as float32
SPAN = "log10 of first to last caption / video"
EDGES: dict[str, np.ndarray] = {
    "seconds of a video": np.linspace(0, 1800, 61),
    "captions per minute": np.linspace(0, 40, 41),
    "seconds of a caption": np.linspace(0, 30, 61),
    "word pieces of a caption": np.linspace(-0.5, 64.5, 66),
    "share of a video with captions": np.linspace(0, 1, 41),
    "length of a feature row": np.linspace(0, 2, 81),
    SPAN: np.linspace(-4.01, 7.01, 552),  # 0 in the middle of a bin
}
"""What is tallied -> bounds of the bins. Values outside count in the first or last bin."""


class Figure(NamedTuple):
    """A row of the table."""

    text: str
    value: float | None = None
    """A mean, a median, a count, or a share in percent, which has a plausible range."""
    unit: str = ""
    """The unit of the range."""


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

    def part(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Returns the share of the values from `low` to `high` and their median, both as exact as
        the bins. If there are no such values, the share is 0 and the median meaningless.
        """
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        counts = np.where((centres >= low) & (centres <= high), self.counts, 0)
        middle = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
        return float(counts.sum()) / max(self.count, 1), float(centres[middle])

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

    def figure(self, digits: int) -> Figure:
        """Returns mean and extremes for a table."""
        if self.mean is None:
            return Figure("-")
        text = f"{self.mean:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"
        return Figure(text, self.mean)


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
    outlasted: int = 0  # videos whose captions last longer, from the first start to the last end
    early: int = 0  # videos with captions in their first tenth only
    seconds: int = 0
    captions: int = 0
    pieces: int = 0
    spoken_s: float = 0.0  # sum of the durations of captions, none counted longer than its video
    inside_s: float = 0.0  # the same, cut to the videos
    covered_s: float = 0.0  # seconds with at least one caption
    reversed: int = 0  # captions that end before they start
    negative: int = 0  # captions that start before their video
    late: int = 0  # captions that start after their video
    instant: int = 0  # captions that end as they start
    unordered: int = 0
    empty: int = 0  # captions without a word piece
    unknown_pieces: int = 0  # ids that the vocabulary does not have
    captions_alike: int = 0  # captions that equal an earlier one of their shard
    texts_alike: int = 0  # videos whose captions equal those of an earlier one of their shard
    features_alike: int = 0  # the same for features
    unk: int = 0  # pieces that are [UNK]
    inside: int = 0  # pieces that continue a word
    nan: int = 0  # numbers, in features
    infinite: int = 0
    zero_rows: int = 0
    uneven_rows: int = 0  # of another length than 1
    still_rows: int = 0  # equal to the row before
    directed_rows: int = 0  # neither zero nor damaged, in shards with enough of them
    direction: float = 0.0  # length of the sum of these rows, each divided by its length
    columns: int = 0  # of features, summed over the shards
    constant_columns: int = 0  # of one value in the whole shard
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

    def rows(self) -> dict[str, Figure]:
        """Returns the rows of a table: title -> figure. `videos: ...` belongs under `videos`."""
        tallies = self.tallies
        spans = tallies[SPAN]
        # The first one of a shard cannot equal an earlier one.
        captions_compared = self.captions - self.empty - self.shards_read
        texts_compared = self.videos - self.without_captions - self.shards_read
        features_compared = self.videos - self.shards_read
        known_pieces = self.pieces - self.unknown_pieces
        # 0 without captions: `videos: without captions` reports that, and other figures are empty.
        captioned_s = self.seconds * bool(self.captions)
        damaged = self.nan + self.infinite
        return {
            "listed videos": Figure(f"{self.listed:,}"),
            "listed videos: repeated lines": _part(self.repeated, self.listed),
            "listed videos: also in the other list": _part(self.in_both, self.listed),
            "listed videos: not packed": _part(self.not_packed, self.listed),
            "shards read": Figure(f"{self.shards_read:,} of {self.shards:,}"),
            "videos": Figure(f"{self.videos:,}"),
            "videos: without captions": _part(self.without_captions, self.videos),
            "videos: shorter than their captions": _part(self.outlasted, spans.count),
            "videos: captions end in the first tenth": _part(self.early, spans.count),
            "videos: with captions of another": _part(self.texts_alike, texts_compared),
            "videos: with features of another": _part(self.features_alike, features_compared),
            "hours": Figure(f"{self.seconds / 3600:,.1f}"),
            "seconds of a video": tallies["seconds of a video"].figure(0),
            "captions": Figure(f"{self.captions:,}"),
            "captions: per minute": _ratio(60 * self.captions, captioned_s),
            "captions: without a word": _part(self.empty, self.captions),
            "captions: equal to another": _part(self.captions_alike, captions_compared),
            "captions: end before they start": _part(self.reversed, self.captions),
            "captions: without length": _part(self.instant, self.captions),
            "captions: start outside the video": _part(self.negative + self.late, self.captions),
            "captions: out of order": _part(self.unordered, self.captions),
            "seconds of a caption": tallies["seconds of a caption"].figure(1),
            "tokens": Figure(f"{self.pieces:,}"),
            "tokens: of a caption": tallies["word pieces of a caption"].figure(1),
            "tokens: not in the vocabulary": Figure(f"{self.unknown_pieces:,}"),
            "tokens: unknown ([UNK])": _part(self.unk, known_pieces),
            "tokens: inside a word": _part(self.inside, known_pieces),
            "first to last caption, of the video": _share(10 ** spans.part()[1], spans.count > 0),
            "video time with captions": _share(self.covered_s, captioned_s),
            "caption time on other captions": _share(self.inside_s - self.covered_s, self.inside_s),
            "length of a feature row": tallies["length of a feature row"].figure(3),
            "length of the mean feature row": _ratio(self.direction, self.directed_rows, 3),
            "feature rows": Figure(f"{self.seconds:,}"),
            "feature rows: not of length 1": _part(self.uneven_rows, self.seconds),
            "feature rows: of zeros": _part(self.zero_rows, self.seconds),
            "feature rows: equal to the one before": _part(self.still_rows, self.seconds),
            "feature rows: NaN or infinite numbers": Figure(f"{damaged:,}", damaged),
            "constant feature columns": _share(self.constant_columns, self.columns),
        }


def _ratio(part: float, whole: float, digits: int = 1, unit: str = "") -> Figure:
    if whole <= 0:
        return Figure("-", None, unit)
    return Figure(f"{part / whole:,.{digits}f}{unit}", part / whole, unit)


def _share(part: float, whole: float) -> Figure:
    return _ratio(100 * part, whole, unit=" %")


def _part(count: int, whole: int) -> Figure:
    share = _share(count, whole)
    return share._replace(text=f"{count:,} ({share.text})" if count else "0")


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


def measure_rows(data_RD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the length of every row, float32 [R]; whether it equals the row before, bool [R];
    whether a column has one value in all of at least two rows, bool [D]; and the sum of the rows
    divided by their lengths, without zeros and damaged ones, float64 [D].

    Args:
        data_RD: floats, mapped; read in blocks.
    """
    norms_R = np.empty(len(data_RD), dtype=np.float32)
    still_R = np.zeros(len(data_RD), dtype=bool)
    varies_D = np.full(data_RD.shape[1], len(data_RD) < 2)
    sum_D = np.zeros(data_RD.shape[1])
    for begin in range(0, len(data_RD), BLOCK_ROWS):
        first = max(begin - 1, 0)  # the block begins with the row before it, to compare with
        block = data_RD[first : begin + BLOCK_ROWS].astype(np.float32)
        end = first + len(block)
        norms_R[first:end] = np.linalg.norm(block, axis=1)
        same = block[1:] == block[:-1]
        still_R[first + 1 : end] = same.all(axis=1)
        varies_D |= ~same.all(axis=0)
        norms = norms_R[begin:end]
        good = np.isfinite(norms) & (norms > 0)
        sum_D += (1 / norms[good]) @ block[begin - first :][good]
    return norms_R, still_R, ~varies_D, sum_D


def save_histograms(path: str | Path, splits: Mapping[str, SplitStatistics]) -> None:
    """Draws every tally as the share of values per bin, a line per split, and writes `path`.

    Args:
        splits: split name -> its statistics.
    """
    from matplotlib.figure import Figure  # deferred: a second, and only figures need it

    figure = Figure(figsize=(16, 6), layout="constrained")
    axes = figure.subplots(2, 4).flat
    axes[-1].set_axis_off()
    for axis, name in zip(axes[:-1], EDGES, strict=True):
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
