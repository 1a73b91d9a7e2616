"""Statistics of features and captions, computed per shard and then merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.prepare.check.tally import Statistic, Tally
from mmpt.utils.io import atomic_write

SPAN = "log10 of first to last caption / video"
EDGES: dict[str, np.ndarray] = {
    "seconds of a video": np.linspace(0, 1800, 61),
    "captions per minute": np.linspace(0, 40, 41),
    "seconds of a caption": np.linspace(0, 30, 61),
    "word pieces of a caption": np.linspace(-0.5, 64.5, 66),
    "share of a video with captions": np.linspace(0, 1, 41),
    "norm of a feature row": np.linspace(0, 2, 81),
    SPAN: np.linspace(-4.01, 7.01, 552),  # 0 is in the middle of a bin
}
"""Name of a histogram -> edges of its bins."""


def _empty_tallies() -> dict[str, Tally]:
    """Returns the histograms without any values."""
    return {name: Tally(edges) for name, edges in EDGES.items()}


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
    # Videos that are shorter than the time from their first caption's start to the last one's end.
    outlasted: int = 0
    early: int = 0  # videos with captions in their first tenth only
    seconds: float = 0.0  # length of the videos
    feature_rows: int = 0
    captions: int = 0
    pieces: int = 0  # word pieces
    # Sum of caption durations; each counts at most the length of its video.
    spoken_s: float = 0.0
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
    # Videos with the same captions as an earlier video of their shard.
    texts_alike: int = 0
    # Videos with the same features as an earlier video of their shard.
    features_alike: int = 0
    unk: int = 0  # word pieces that are [UNK]
    inside: int = 0  # word pieces that continue a word
    nan: int = 0  # numbers in features that are NaN
    infinite: int = 0  # numbers in features that are infinite
    zero_rows: int = 0  # feature rows of zeros
    uneven_rows: int = 0  # feature rows whose L2 norm is not 1
    still_rows: int = 0  # feature rows that equal the previous row
    # Rows that are neither zero nor damaged, in shards with enough rows.
    directed_rows: int = 0
    # L2 norm of the sum of these rows, after dividing each by its norm.
    direction: float = 0.0
    columns: int = 0  # feature columns, summed over the shards
    constant_columns: int = 0  # feature columns with a single value in the whole shard
    tallies: dict[str, Tally] = field(default_factory=_empty_tallies)

    def merge(self, other: SplitStatistics) -> None:
        """Adds the counts and histograms of `other`."""
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])
        for count in fields(self):
            name = count.name
            if name == "tallies":
                continue
            total = getattr(self, name) + getattr(other, name)
            setattr(self, name, total)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        tallies = {name: tally.to_dict() for name, tally in self.tallies.items()}
        return vars(self) | {"tallies": tallies}

    def rows(self) -> dict[str, Statistic]:
        """Returns the rows of the table, title -> statistic.

        A row with the title `videos: ...` is shown indented under the row `videos`.
        """
        return {
            **self._video_rows(),
            **self._caption_rows(),
            **self._token_rows(),
            **self._time_rows(),
            **self._feature_rows(),
        }

    def _video_rows(self) -> dict[str, Statistic]:
        """Returns the rows about the list and the videos."""
        # The first video of each shard has no earlier one to equal, so it is not counted.
        features_compared = self.videos - self.shards_read
        texts_compared = features_compared - self.without_captions
        num_spans = self.tallies[SPAN].count
        hours = self.seconds / 3600
        return {
            "listed videos": Statistic(f"{self.listed:,}"),
            "listed videos: repeated lines": _part(self.repeated, self.listed),
            "listed videos: also in the other list": _part(self.in_both, self.listed),
            "listed videos: not packed": _part(self.not_packed, self.listed),
            "shards read": Statistic(f"{self.shards_read:,} of {self.shards:,}"),
            "videos": Statistic(f"{self.videos:,}"),
            "videos: without captions": _part(self.without_captions, self.videos),
            "videos: shorter than their captions": _part(self.outlasted, num_spans),
            "videos: captions end in the first tenth": _part(self.early, num_spans),
            "videos: with captions of another": _part(self.texts_alike, texts_compared),
            "videos: with features of another": _part(
                self.features_alike, features_compared
            ),
            "hours": Statistic(f"{hours:,.1f}"),
            "seconds of a video": self.tallies["seconds of a video"].statistic(0),
        }

    @property
    def _captioned_s(self) -> float:
        """Seconds of video; 0 if there are no captions.

        Without captions, the statistics of captions stay empty, and only `videos: without captions`
        reports the problem.
        """
        return self.seconds if self.captions else 0

    def _caption_rows(self) -> dict[str, Statistic]:
        """Returns the rows about captions."""
        # The first caption of each shard has no earlier one to equal, so it is not counted.
        captions_compared = self.captions - self.empty - self.shards_read
        num_outside = self.negative + self.late
        return {
            "captions": Statistic(f"{self.captions:,}"),
            "captions: per minute": _ratio(60 * self.captions, self._captioned_s),
            "captions: without a word": _part(self.empty, self.captions),
            "captions: equal to another": _part(self.captions_alike, captions_compared),
            "captions: end before they start": _part(self.reversed, self.captions),
            "captions: without length": _part(self.instant, self.captions),
            "captions: start outside the video": _part(num_outside, self.captions),
            "captions: out of order": _part(self.unordered, self.captions),
            "seconds of a caption": self.tallies["seconds of a caption"].statistic(1),
        }

    def _token_rows(self) -> dict[str, Statistic]:
        """Returns the rows about word pieces."""
        known_pieces = self.pieces - self.unknown_pieces
        return {
            "tokens": Statistic(f"{self.pieces:,}"),
            "tokens: of a caption": self.tallies["word pieces of a caption"].statistic(
                1
            ),
            "tokens: not in the vocabulary": Statistic(f"{self.unknown_pieces:,}"),
            "tokens: unknown ([UNK])": _part(self.unk, known_pieces),
            "tokens: inside a word": _part(self.inside, known_pieces),
        }

    def _time_rows(self) -> dict[str, Statistic]:
        """Returns the rows that compare the times of captions with the videos."""
        spans = self.tallies[SPAN]
        _, median_log_span = spans.share_and_median()
        median_span = 10**median_log_span
        overlapping_s = self.inside_s - self.covered_s
        return {
            "first to last caption, of the video": _share(median_span, spans.count > 0),
            "video time with captions": _share(self.covered_s, self._captioned_s),
            "caption time on other captions": _share(overlapping_s, self.inside_s),
        }

    def _feature_rows(self) -> dict[str, Statistic]:
        """Returns the rows about features."""
        damaged = self.nan + self.infinite
        return {
            "norm of a feature row": self.tallies["norm of a feature row"].statistic(3),
            "norm of the mean feature row": _ratio(
                self.direction, self.directed_rows, 3
            ),
            "feature rows": Statistic(f"{self.feature_rows:,}"),
            "feature rows: norm is not 1": _part(self.uneven_rows, self.feature_rows),
            "feature rows: of zeros": _part(self.zero_rows, self.feature_rows),
            "feature rows: equal to the one before": _part(
                self.still_rows, self.feature_rows
            ),
            "feature rows: NaN or infinite numbers": Statistic(f"{damaged:,}", damaged),
            "constant feature columns": _share(self.constant_columns, self.columns),
        }


def _ratio(part: float, whole: float, digits: int = 1, unit: str = "") -> Statistic:
    """Returns `part / whole`; without a value if `whole` is 0."""
    if whole <= 0:
        return Statistic("-", None, unit)
    ratio = part / whole
    return Statistic(f"{ratio:,.{digits}f}{unit}", ratio, unit)


def _share(part: float, whole: float) -> Statistic:
    """Returns `part / whole` in percent."""
    return _ratio(100 * part, whole, unit=" %")


def _part(count: int, whole: int) -> Statistic:
    """Returns a count with its share of `whole`. The value is the share in percent."""
    share = _share(count, whole)
    if count == 0:
        return share._replace(text="0")
    return share._replace(text=f"{count:,} ({share.text})")


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
    is_filled = len(splits) == 1  # several filled histograms would hide each other
    for axis, name in zip(axes[:-1], EDGES, strict=True):
        for split, statistics in splits.items():
            tally = statistics.tallies[name]
            if not tally.count:
                continue
            shares = tally.counts / tally.count
            label = f"{split}: mean {tally.mean:.3g}"
            axis.stairs(shares, tally.edges, label=label, fill=is_filled, alpha=0.8)
            axis.legend(fontsize="small")
        axis.set_xlabel(name)
        axis.set_ylabel("share")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png")
