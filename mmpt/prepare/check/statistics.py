"""Statistics of features and captions, computed per shard and then merged.

Legend: V videos, C captions of all videos, R feature rows of all videos, D features (columns).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.utils.io import atomic_write

BLOCK_ROWS = 8192  # feature rows read at a time; 16 MB as float32
SPAN = "log10 of first to last caption / video"
EDGES: dict[str, np.ndarray] = {
    "seconds of a video": np.linspace(0, 1800, 61),
    "captions per minute": np.linspace(0, 40, 41),
    "seconds of a caption": np.linspace(0, 30, 61),
    "word pieces of a caption": np.linspace(-0.5, 64.5, 66),
    "share of a video with captions": np.linspace(0, 1, 41),
    "length of a feature row": np.linspace(0, 2, 81),
    SPAN: np.linspace(-4.01, 7.01, 552),  # 0 is in the middle of a bin
}
"""Name of a histogram -> edges of its bins. Values outside count in the first or last bin."""


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
        self.counts = np.zeros(len(edges) - 1, dtype=np.int64)
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
        clipped = np.clip(values, self.edges[0], self.edges[-1])
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
        return self.total / self.count if self.count else None

    def share_and_median(self, low: float = -np.inf, high: float = np.inf) -> tuple[float, float]:
        """Returns the share of the values from `low` to `high`, and the median of these values.

        Both are as exact as the bins. Without such values, the share is 0 and the median has no
        meaning.
        """
        centres = (self.edges[:-1] + self.edges[1:]) / 2
        counts = np.where((centres >= low) & (centres <= high), self.counts, 0)
        share = float(counts.sum()) / max(self.count, 1)
        middle = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))
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


@dataclass
class SplitStatistics:
    """Counts and histograms of a split, for the listed videos in the shards that were read."""

    listed: int = 0  # ids in the list
    repeated: int = 0  # lines of the list that repeat an earlier line
    in_both: int = 0  # ids in both lists
    not_packed: int = 0  # listed ids that are in no shard
    shards: int = 0  # shards of the split
    shards_read: int = 0
    videos: int = 0  # listed videos in the shards that were read
    without_captions: int = 0
    outlasted: int = 0  # videos that are shorter than from their first start to their last end
    early: int = 0  # videos with captions in their first tenth only
    seconds: int = 0  # feature rows
    captions: int = 0
    pieces: int = 0  # word pieces
    spoken_s: float = 0.0  # sum of caption durations; each counts at most the length of its video
    inside_s: float = 0.0  # sum of caption durations within their videos
    covered_s: float = 0.0  # seconds of video with at least one caption
    reversed: int = 0  # captions that end before they start
    negative: int = 0  # captions that start before their video
    late: int = 0  # captions that start after their video
    instant: int = 0  # captions that end when they start
    unordered: int = 0  # captions that start before the previous one
    empty: int = 0  # captions without a word piece
    unknown_pieces: int = 0  # word-piece ids that are not in the vocabulary
    captions_alike: int = 0  # captions that equal an earlier one of their shard
    texts_alike: int = 0  # videos whose captions equal those of an earlier video of their shard
    features_alike: int = 0  # videos whose features equal those of an earlier video
    unk: int = 0  # word pieces that are [UNK]
    inside: int = 0  # word pieces that continue a word
    nan: int = 0  # numbers in features that are NaN
    infinite: int = 0  # numbers in features that are infinite
    zero_rows: int = 0  # feature rows of zeros
    uneven_rows: int = 0  # feature rows whose L2 norm is not 1
    still_rows: int = 0  # feature rows that equal the previous row
    directed_rows: int = 0  # rows that are neither zero nor damaged, in shards with enough rows
    direction: float = 0.0  # L2 norm of the sum of these rows, after dividing each by its norm
    columns: int = 0  # feature columns, summed over the shards
    constant_columns: int = 0  # feature columns with a single value in the whole shard
    tallies: dict[str, Tally] = field(
        default_factory=lambda: {name: Tally(edges) for name, edges in EDGES.items()}
    )

    def merge(self, other: SplitStatistics) -> None:
        """Adds the counts and histograms of `other`."""
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])
        for count in fields(self):
            if count.name != "tallies":
                total = getattr(self, count.name) + getattr(other, count.name)
                setattr(self, count.name, total)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        tallies = {name: tally.to_dict() for name, tally in self.tallies.items()}
        return vars(self) | {"tallies": tallies}

    def rows(self) -> dict[str, Statistic]:
        """Returns the rows of the table, title -> statistic.

        A row with the title `videos: ...` is shown indented under the row `videos`.
        """
        tallies = self.tallies
        spans = tallies[SPAN]
        # The first item of each shard has no earlier one to equal, so it is not counted.
        captions_compared = self.captions - self.empty - self.shards_read
        texts_compared = self.videos - self.without_captions - self.shards_read
        features_compared = self.videos - self.shards_read
        known_pieces = self.pieces - self.unknown_pieces
        # 0 if there are no captions. `videos: without captions` reports this, and the statistics of
        # captions stay empty.
        captioned_s = self.seconds * bool(self.captions)
        damaged = self.nan + self.infinite
        _, median_log_span = spans.share_and_median()
        return {
            "listed videos": Statistic(f"{self.listed:,}"),
            "listed videos: repeated lines": _part(self.repeated, self.listed),
            "listed videos: also in the other list": _part(self.in_both, self.listed),
            "listed videos: not packed": _part(self.not_packed, self.listed),
            "shards read": Statistic(f"{self.shards_read:,} of {self.shards:,}"),
            "videos": Statistic(f"{self.videos:,}"),
            "videos: without captions": _part(self.without_captions, self.videos),
            "videos: shorter than their captions": _part(self.outlasted, spans.count),
            "videos: captions end in the first tenth": _part(self.early, spans.count),
            "videos: with captions of another": _part(self.texts_alike, texts_compared),
            "videos: with features of another": _part(self.features_alike, features_compared),
            "hours": Statistic(f"{self.seconds / 3600:,.1f}"),
            "seconds of a video": tallies["seconds of a video"].statistic(0),
            "captions": Statistic(f"{self.captions:,}"),
            "captions: per minute": _ratio(60 * self.captions, captioned_s),
            "captions: without a word": _part(self.empty, self.captions),
            "captions: equal to another": _part(self.captions_alike, captions_compared),
            "captions: end before they start": _part(self.reversed, self.captions),
            "captions: without length": _part(self.instant, self.captions),
            "captions: start outside the video": _part(self.negative + self.late, self.captions),
            "captions: out of order": _part(self.unordered, self.captions),
            "seconds of a caption": tallies["seconds of a caption"].statistic(1),
            "tokens": Statistic(f"{self.pieces:,}"),
            "tokens: of a caption": tallies["word pieces of a caption"].statistic(1),
            "tokens: not in the vocabulary": Statistic(f"{self.unknown_pieces:,}"),
            "tokens: unknown ([UNK])": _part(self.unk, known_pieces),
            "tokens: inside a word": _part(self.inside, known_pieces),
            "first to last caption, of the video": _share(10**median_log_span, spans.count > 0),
            "video time with captions": _share(self.covered_s, captioned_s),
            "caption time on other captions": _share(self.inside_s - self.covered_s, self.inside_s),
            "length of a feature row": tallies["length of a feature row"].statistic(3),
            "length of the mean feature row": _ratio(self.direction, self.directed_rows, 3),
            "feature rows": Statistic(f"{self.seconds:,}"),
            "feature rows: not of length 1": _part(self.uneven_rows, self.seconds),
            "feature rows: of zeros": _part(self.zero_rows, self.seconds),
            "feature rows: equal to the one before": _part(self.still_rows, self.seconds),
            "feature rows: NaN or infinite numbers": Statistic(f"{damaged:,}", damaged),
            "constant feature columns": _share(self.constant_columns, self.columns),
        }


def _ratio(part: float, whole: float, digits: int = 1, unit: str = "") -> Statistic:
    """Returns `part / whole`; without a value if `whole` is 0."""
    if whole <= 0:
        return Statistic("-", None, unit)
    return Statistic(f"{part / whole:,.{digits}f}{unit}", part / whole, unit)


def _share(part: float, whole: float) -> Statistic:
    """Returns `part / whole` in percent."""
    return _ratio(100 * part, whole, unit=" %")


def _part(count: int, whole: int) -> Statistic:
    """Returns a count with its share of `whole`. The value is the share in percent."""
    share = _share(count, whole)
    return share._replace(text=f"{count:,} ({share.text})" if count else "0")


def caption_seconds(
    starts_C: np.ndarray, ends_C: np.ndarray, owners_C: np.ndarray, seconds_V: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Computes how many seconds of every video have captions, as a sum and as a union.

    The union of the intervals of a video is found by sorting them by start. Each interval adds the
    part of it that begins after the latest end so far.

    Args:
        starts_C: finite start times in seconds, in any order within a video.
        ends_C: finite end times in seconds. A caption that ends before it starts counts as empty.
        owners_C: the video of each caption, int, non-decreasing.
        seconds_V: length of every video in seconds.
    Returns:
        The sum of caption durations within each video, and the number of seconds with at least one
        caption; both float64 [V].
    """
    # Cut the captions to their videos, and sort them by video and start.
    lengths_C = seconds_V.astype(np.float64)[owners_C]
    starts_C = np.clip(starts_C.astype(np.float64), 0, lengths_C)
    ends_C = np.maximum(np.clip(ends_C.astype(np.float64), 0, lengths_C), starts_C)
    order_C = np.lexsort((starts_C, owners_C))
    owners_C = owners_C[order_C]
    # Place the videos one after another on one time line, so that one running maximum gives the
    # latest end so far for all videos.
    lengths_V = seconds_V.astype(np.float64) + 1
    offsets_V = np.cumsum(lengths_V) - lengths_V
    starts_C = starts_C[order_C] + offsets_V[owners_C]
    ends_C = ends_C[order_C] + offsets_V[owners_C]
    previous_ends_C = np.concatenate([[-1.0], ends_C])[:-1]
    latest_ends_C = np.maximum.accumulate(previous_ends_C)
    new_C = np.maximum(ends_C - np.maximum(starts_C, latest_ends_C), 0)
    num_videos = len(seconds_V)
    spoken_V = np.bincount(owners_C, weights=ends_C - starts_C, minlength=num_videos)
    covered_V = np.bincount(owners_C, weights=new_C, minlength=num_videos)
    return spoken_V, covered_V


def measure_rows(data_RD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Measures feature rows, in blocks of `BLOCK_ROWS`.

    Args:
        data_RD: mapped floats.
    Returns:
        L2 norm of every row, float32 [R];
        whether a row equals the previous one, bool [R];
        whether a column has a single value in all rows (at least two), bool [D];
        sum of the normalised rows, without zero and damaged rows, float64 [D].
    """
    norms_R = np.empty(len(data_RD), dtype=np.float32)
    still_R = np.zeros(len(data_RD), dtype=bool)
    varies_D = np.full(data_RD.shape[1], len(data_RD) < 2)
    sum_D = np.zeros(data_RD.shape[1])
    for begin in range(0, len(data_RD), BLOCK_ROWS):
        # A block begins with the last row of the previous block, to compare its first row with.
        first = max(begin - 1, 0)
        block = data_RD[first : begin + BLOCK_ROWS].astype(np.float32)
        end = first + len(block)
        norms_R[first:end] = np.linalg.norm(block, axis=1)
        same = block[1:] == block[:-1]
        still_R[first + 1 : end] = same.all(axis=1)
        varies_D |= ~same.all(axis=0)
        norms = norms_R[begin:end]
        rows = block[begin - first :]
        good = np.isfinite(norms) & (norms > 0)
        sum_D += (1 / norms[good]) @ rows[good]
    return norms_R, still_R, ~varies_D, sum_D


def save_histograms(path: str | Path, splits: Mapping[str, SplitStatistics]) -> None:
    """Draws all histograms, with one curve per split, and writes them as a PNG file.

    Args:
        path: the file to write.
        splits: name of a split -> its statistics.
    """
    from matplotlib.figure import Figure  # deferred, because the import takes a second

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
