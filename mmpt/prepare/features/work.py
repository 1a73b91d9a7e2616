"""What an extraction's threads tell each other about videos, and what its report says of them in
the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mmpt.media.video_list import VideoJob


@dataclass
class ExtractionReport:
    """What became of every video of a run."""

    num_videos: int
    written: list[str] = field(default_factory=list)
    num_present: int = 0
    """Videos whose features were there already."""
    seconds: int = 0
    """Seconds of video written."""
    failed: dict[str, str] = field(default_factory=dict)
    """By id: why there are no features."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """By id: what was wrong with a video that could be read nevertheless."""

    @property
    def num_done(self) -> int:
        """Videos that need nothing more from this run."""
        return len(self.written) + self.num_present + len(self.failed)


class Rows:
    """The rows of one video so far, in one growing piece of memory.

    An array for each would lie between the network's large ones and keep the allocator from joining
    the holes that those leave: with a small network that cost 18 MB for every second of video.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def append(self, row: np.ndarray) -> None:
        """Take in a row, float32 [512]."""
        assert row.dtype == np.float32
        self._bytes += row.tobytes()
        self._num += 1

    def stack(self) -> np.ndarray:
        """Return float32 [rows, 512]."""
        return np.frombuffer(self._bytes, dtype=np.float32).reshape(self._num, -1)


@dataclass
class Work:
    """A video between its first clip and its feature file."""

    job: VideoJob
    rows: Rows = field(default_factory=Rows)
    num_clips: int | None = None  # known when it is decoded
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Clip:
    """A second of a video, for the network."""

    work: Work
    pixels: np.ndarray  # uint8 [30, 224, 224, 3]


@dataclass(frozen=True)
class Decoded:
    """A video's last clip has been sent."""

    work: Work
    num_clips: int
    notes: list[str]


@dataclass(frozen=True)
class Failed:
    """A video cannot be read."""

    job: VideoJob
    reason: str


@dataclass(frozen=True)
class Present:
    """A video's features are there."""


@dataclass(frozen=True)
class Crashed:
    """A thread cannot go on; the main thread raises its error."""

    error: Exception
