"""The frames and clips that one encoder takes from a video.

Several encoders may take clips of the same video. Each has a stream with its own filter graph, and
every decoded frame is added to all streams. FFmpeg's filters never write to a frame that others
use, so each stream has the same frames as it would have alone.
"""

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from mmpt.media.frame_graph import FrameGraph, FrameLayout, Sampling, layout_of


class ClipStream:
    """Turns the decoded frames of a video into RGB frames at a constant rate, and into clips.

    Args:
        sampling: rate, size and number of the frames of a clip.
        time_base: length of one unit of the frames' `pts`, in seconds.
        hflip: mirror the frames horizontally.
        drops_frames: the video has more frames per second than `sampling`.
    """

    def __init__(
        self,
        sampling: Sampling,
        time_base: Fraction,
        *,
        hflip: bool = False,
        drops_frames: bool = False,
    ):
        self.num_frames = 0
        """Number of RGB frames so far."""
        self._sampling = sampling
        self._time_base = time_base
        self._hflip = hflip
        self._drops_frames = drops_frames
        self._graph: FrameGraph | None = None
        self._layout: FrameLayout | None = None
        self._clip: np.ndarray | None = None  # not full yet

    def push(self, frame: av.VideoFrame | None) -> Iterator[np.ndarray]:
        """Adds a decoded frame and yields the RGB frames that are complete, uint8 [H, W, 3].

        The memory of a frame is reused once the next one is asked for.

        Args:
            frame: the frame with a corrected time, or None at the end of the video.
        """
        if frame is not None:
            # A graph takes frames of one layout. If the layout changes within the video, flush the
            # graph, and let a new one continue with the next RGB frame.
            layout = layout_of(frame)
            if layout != self._layout:
                yield from self._push_to_graph(None)
                self._graph = FrameGraph(
                    layout,
                    self._time_base,
                    float(self.num_frames / self._sampling.frame_rate),
                    hflip=self._hflip,
                    drops_frames=self._drops_frames,
                    sampling=self._sampling,
                    shape=self._graph.shape if self._graph else None,
                )
                self._layout = layout
        yield from self._push_to_graph(frame)

    def _push_to_graph(self, frame: av.VideoFrame | None) -> Iterator[np.ndarray]:
        """Yields the RGB frames of the current graph. Without a graph there are none."""
        if self._graph is None:
            return
        for output in self._graph.push(frame):
            self.num_frames += 1
            yield output

    def add_to_clip(self, frame: np.ndarray) -> np.ndarray | None:
        """Copies the last RGB frame of `push` into the current clip. Returns the clip if it is
        full, uint8 [frames, H, W, 3], else None.
        """
        num_frames = self._sampling.num_frames
        place = (self.num_frames - 1) % num_frames
        if self._clip is None:
            self._clip = np.zeros((num_frames, *frame.shape), dtype=np.uint8)
        self._clip[place] = frame
        if place < num_frames - 1:
            return None
        clip, self._clip = self._clip, None
        return clip

    def last_clip(self) -> np.ndarray | None:
        """Returns the clip that is not full at the end of the video, or None.

        It is filled up with black frames if `sampling.size` is set, as for S3D, and otherwise with
        copies of its last frame.
        """
        if self._clip is not None and self._sampling.size is None:
            num_filled = self.num_frames % self._sampling.num_frames
            self._clip[num_filled:] = self._clip[num_filled - 1]
        return self._clip
