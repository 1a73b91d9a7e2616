"""Moments of videos: the windows of an index, and the best ones that do not overlap.

Legend: V videos, n windows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Moment(NamedTuple):
    """A part of a video that was found for a query."""

    video: str
    """Name of the video."""
    start: int
    """Start in seconds."""
    end: int
    """End in seconds, exclusive."""
    score: float
    """Dot product of the vectors of the query and of the window."""


class WindowTable:
    """The windows of many videos, as `window_spans` cuts them.

    Only the length of each video is stored. Windows are numbered through all videos, in order.

    Args:
        names: name of each video.
        seconds_V: length of each video in seconds, at least 1.
        window_s: length of a window in seconds.
        stride_s: seconds from the start of a window to the start of the next one.
    """

    def __init__(
        self,
        names: Sequence[str],
        seconds_V: Sequence[int],
        window_s: int,
        stride_s: int,
    ):
        self.names = names
        self.seconds_V = np.asarray(seconds_V, dtype=np.int64)
        self.window_s = window_s
        self.stride_s = stride_s
        # The last window is the first one that reaches the end of the video.
        seconds_after_first = np.maximum(self.seconds_V - window_s, 0)
        counts_V = 1 + -(-seconds_after_first // stride_s)
        self.first_window = np.concatenate([[0], np.cumsum(counts_V, dtype=np.int64)])
        """int64 [V + 1], the number of the first window of each video, then the number of all
        windows."""

    def __len__(self) -> int:
        return int(self.first_window[-1])

    def moments(self, windows_n: np.ndarray, scores_n: np.ndarray) -> Iterable[Moment]:
        """Yields the moments of windows, in the same order.

        Args:
            windows_n: int64, numbers of windows.
            scores_n: float, their scores.
        """
        videos_n = np.searchsorted(self.first_window, windows_n, side="right") - 1
        starts_n = (windows_n - self.first_window[videos_n]) * self.stride_s
        ends_n = np.minimum(starts_n + self.window_s, self.seconds_V[videos_n])
        columns = (videos_n, starts_n, ends_n, scores_n)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for video, start, end, score in rows:
            yield Moment(self.names[video], start, end, score)


def suppress_overlaps(
    moments: Iterable[Moment], top: int, max_overlap: float = 0.0
) -> list[Moment]:
    """Returns the best moments that do not overlap each other (non-maximum suppression in time).

    The moments are taken from best to worst. A moment is left out if it overlaps one that was
    taken from the same video.

    Args:
        moments: best first.
        top: largest number of moments to return.
        max_overlap: largest allowed overlap of two moments of a video, in 0..1: the length of their
            intersection divided by the length of their union. With 1, nothing is left out.
    """
    taken: list[Moment] = []
    taken_of: dict[str, list[Moment]] = defaultdict(list)
    for moment in moments:
        if len(taken) == top:
            break
        others = taken_of[moment.video]
        if any(overlap(moment, other) > max_overlap for other in others):
            continue
        others.append(moment)
        taken.append(moment)
    return taken


def overlap(one: Moment, other: Moment) -> float:
    """Returns the intersection over union of the spans of two moments of a video."""
    common = min(one.end, other.end) - max(one.start, other.start)
    union = max(one.end, other.end) - min(one.start, other.start)
    return max(common, 0) / union
