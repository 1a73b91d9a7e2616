"""The statistics of one split, gathered shard by shard and merged; what a table and a figure show
of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpt.prepare.check.statistics import Tally
from mmpt.utils.tables import text_table

EDGES: dict[str, np.ndarray] = {
    "seconds of a video": np.linspace(0, 1800, 61),
    "captions per minute": np.linspace(0, 40, 41),
    "seconds of a caption": np.linspace(0, 30, 61),
    "word pieces of a caption": np.linspace(-0.5, 64.5, 66),
    "share of a video with captions": np.linspace(0, 1, 41),
    "length of a feature row": np.linspace(0, 2, 81),
}


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
        for one in dataclasses.fields(self):
            if one.name != "tallies":
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        for name, tally in self.tallies.items():
            tally.merge(other.tallies[name])

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        plain = {
            one.name: getattr(self, one.name)
            for one in dataclasses.fields(self)
            if one.name != "tallies"
        }
        return plain | {"tallies": {name: tally.to_dict() for name, tally in self.tallies.items()}}

    def rows(self) -> dict[str, str]:
        """Returns what a table shows: title -> text."""
        norms, lengths = self.tallies["length of a feature row"], self.tallies["seconds of a video"]
        pieces = self.tallies["word pieces of a caption"]
        return {
            "listed videos": f"{self.listed:,}",
            "  repeated lines": f"{self.repeated:,}",
            "  also in the other list": f"{self.in_both:,}",
            "  not packed": _part(self.not_packed, self.listed),
            "shards read": f"{self.shards_read:,} of {self.shards:,}",
            "videos": f"{self.videos:,}",
            "  without captions": _part(self.without_captions, self.videos),
            "hours": f"{self.seconds / 3600:,.1f}",
            "seconds of a video": _range(lengths, 0),
            "captions": f"{self.captions:,}",
            "  per minute": _ratio(60 * self.captions, self.seconds),
            "  without a word": _part(self.empty, self.captions),
            "  end before they start": _part(self.reversed, self.captions),
            "  start before their video": _part(self.negative, self.captions),
            "  start after their video": _part(self.late, self.captions),
            "  out of order": _part(self.unordered, self.captions),
            "tokens": f"{self.pieces:,}",
            "  of a caption": _range(pieces, 1),
            "  not in the vocabulary": f"{self.unknown_pieces:,}",
            "video time with captions": _share(self.covered_s, self.seconds),
            "caption time on other captions": _share(self.inside_s - self.covered_s, self.inside_s),
            "caption time outside the video": _share(self.spoken_s - self.inside_s, self.spoken_s),
            "length of a feature row": _range(norms, 3),
            "  NaN": f"{self.nan:,}",
            "  infinite": f"{self.infinite:,}",
        }


def render_statistics(splits: dict[str, SplitStatistics]) -> str:
    """Returns an aligned table with a column per split."""
    columns = [statistics.rows() for statistics in splits.values()]
    titles = columns[0] if columns else {}
    rows = [[title, *(column[title] for column in columns)] for title in titles]
    return text_table(["", *splits], rows)


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({_share(count, whole)})" if count else "0"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.1f}" if whole else "-"


def _range(tally: Tally, digits: int) -> str:
    if not tally.count:
        return "-"
    return f"{tally.mean:.{digits}f} ({tally.low:.{digits}f} to {tally.high:.{digits}f})"
