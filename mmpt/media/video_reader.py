"""Reads a video file as the one-second clips that S3D takes, a clip at a time.

Decoder: PyAV, the Python binding of FFmpeg's libraries.
- Speed: libavcodec itself, about 2,600 frames/s of H.264 at 640 x 360 on one core
  (benchmarks/extract.py), without the interpreter's lock, so threads decode in parallel. torchcodec
  calls the same libavcodec and is no faster on CPUs.
- Wheels: PyAV's hold FFmpeg (for Linux, macOS and Windows); torchcodec's need FFmpeg's shared
  libraries on the system and a release that matches torch's.
- Licence: BSD-3-Clause; FFmpeg inside the wheel is LGPL with GPL parts (x264), which is used, never
  passed on, here.
- FFmpeg's filters, which made the released features, come with it (frame_graph.py).

Times count from the container's start, as in a player and so in captions: pictures that begin later
than the sound are preceded by copies of the first one. Pixel aspect ratios are ignored, as in the
original.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mmpt.errors import DataError
from mmpt.media.frame_graph import FPS, SIZE, FrameGraph, FrameLayout

CLIP_SHAPE = (FPS, SIZE, SIZE, 3)
MAX_GAP_S = 3600
"""Two pictures further apart than this are broken timestamps: each missing second would become a
clip.
"""
MAX_DAMAGED_SHARE = 2 / 3
"""Share of a video's packets. FFmpeg's command gives up at the same share."""
_SHORT_S = 1.0  # a video that ends so much before its announced end gets a note


class VideoError(DataError):
    """A video file cannot be read; the message has the reason without the file's name."""


class VideoFile:
    """One video to be read once, from the beginning.

    Args:
        path: the file.
        hflip: mirror the pictures.
        num_threads: decoder threads.
    """

    def __init__(self, path: str | Path, *, hflip: bool = False, num_threads: int = 1):
        self.path = Path(path)
        self.num_frames = 0
        """Pictures that came out so far, at 30 per second."""
        self.notes: list[str] = []
        """After reading: what was wrong with a file that could be read nevertheless."""
        self._hflip = hflip
        self._num_threads = num_threads
        self._num_packets = self._num_damaged = self._num_corrupt = 0
        self._end_s = 0.0

    def clips(self) -> Iterator[np.ndarray]:
        """Yields uint8 [30, 224, 224, 3] for each second; the last one is filled up with black
        pictures.

        Raises:
            VideoError: not a video, no picture in it, or broken beyond use; also after some clips.
        """
        clip, filled = np.zeros(CLIP_SHAPE, dtype=np.uint8), 0
        for frame in self.frames():
            clip[filled] = frame
            filled += 1
            if filled == FPS:
                yield clip
                clip, filled = np.zeros(CLIP_SHAPE, dtype=np.uint8), 0
        if filled:
            yield clip

    def frames(self) -> Iterator[np.ndarray]:
        """Yields pictures uint8 [224, 224, 3], 30 per second; each is valid until the next one is
        asked for.

        Raises:
            VideoError: as for `clips`.
        """
        with self._open() as container, as_video_error():
            stream = choose_stream(container)
            stream.codec_context.thread_count = self._num_threads
            stream.codec_context.thread_type = "AUTO" if self._num_threads > 1 else "NONE"
            for frame in self._filtered(container, stream):
                self.num_frames += 1
                yield frame
            self._judge(container, stream)

    @contextmanager
    def _open(self) -> Iterator[av.container.InputContainer]:
        with as_video_error():
            if self.path.stat().st_size == 0:
                raise VideoError("the file is empty")
            # Local files only: a playlist that calls itself a video must not fetch anything.
            container = av.open(
                f"file:{self.path}",
                metadata_errors="ignore",
                options={"protocol_whitelist": "file"},
            )
        with container:
            yield container

    def _filtered(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[np.ndarray]:
        """Decode, and run frames through a graph; a frame of another size or kind closes it and
        starts the next.
        """
        graph, layout = None, None
        time_base = stream.time_base or Fraction(1, av.time_base)
        is_fast = (stream.average_rate or FPS) > FPS
        for frame in self._timed(self._decoded(container, stream), container, stream, time_base):
            found = FrameLayout.of(frame)
            if graph is None or found != layout:
                if graph is not None:
                    yield from graph.push(None)
                graph = FrameGraph(
                    found, time_base, self.num_frames / FPS, hflip=self._hflip, is_fast=is_fast
                )
                layout = found
            yield from graph.push(frame)
        if graph is not None:
            yield from graph.push(None)

    def _decoded(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Yields frames in the order of showing; what cannot be decoded is counted and left out."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as err:
                self.notes.append(f"reading stops after {self._end_s:.1f} s ({err.strerror})")
                yield from stream.codec_context.decode(None)
                return
            if packet is None:
                return
            self._num_packets += packet.size > 0
            try:
                frames = packet.decode()
            except (av.FFmpegError, EOFError):
                self._num_damaged += 1
                continue
            for frame in frames:
                self._num_corrupt += frame.is_corrupt
                yield frame

    def _timed(
        self,
        frames: Iterator[av.VideoFrame],
        container: av.container.InputContainer,
        stream: av.VideoStream,
        time_base: Fraction,
    ) -> Iterator[av.VideoFrame]:
        """Yields frames with `pts` from the container's start and a duration, both in units of
        `time_base`.
        """
        shift = round(Fraction(container.start_time or 0, av.time_base) / time_base)
        usual = max(1, round(1 / ((stream.average_rate or stream.guessed_rate or FPS) * time_base)))
        due = shift
        for frame in frames:
            time = next((time for time in (frame.pts, frame.dts) if time is not None), due)
            if (time - due) * time_base > MAX_GAP_S:
                raise VideoError(f"its timestamps are broken: they jump by more than {MAX_GAP_S} s")
            if not frame.duration:
                frame.duration = usual
            due = time + frame.duration
            frame.pts = time - shift
            self._end_s = float((due - shift) * time_base)
            yield frame

    def _judge(self, container: av.container.InputContainer, stream: av.VideoStream) -> None:
        """Decides whether what came out is the video; note what is missing."""
        if self._num_damaged > MAX_DAMAGED_SHARE * self._num_packets:
            raise VideoError(
                f"{self._num_damaged} of its {self._num_packets} packets cannot be decoded"
            )
        if not self.num_frames:
            raise VideoError("no picture could be decoded")
        if self._num_damaged or self._num_corrupt:
            self.notes.append(
                f"{self._num_damaged} of {self._num_packets} packets could not be decoded, "
                f"{self._num_corrupt} pictures are damaged"
            )
        announced_s = _announced_seconds(container, stream)
        if announced_s - self._end_s > max(_SHORT_S, 0.05 * announced_s):
            self.notes.append(
                f"its pictures end at {self._end_s:.1f} s, but {announced_s:.1f} s were announced"
            )


def read_frames(path: str | Path, *, max_seconds: float | None = None) -> np.ndarray:
    """Returns a whole (short) video as uint8 [frames, 224, 224, 3] at 30 pictures per second.

    Args:
        max_seconds: stop reading there.
    Raises:
        VideoError: it cannot be read.
    """
    frames = []
    for frame in VideoFile(path).frames():
        frames.append(frame.copy())
        if max_seconds is not None and len(frames) >= max_seconds * FPS:
            break
    return np.stack(frames)


def choose_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Returns the stream that FFmpeg deems best, or the first that is no cover picture."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise VideoError(
            "it holds no pictures (audio only)"
            if container.streams.audio
            else "it holds no pictures"
        )
    best = container.streams.best("video")
    return best if best in streams else streams[0]


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _announced_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


@contextmanager
def as_video_error() -> Iterator[None]:
    """Turns what FFmpeg and the file system raise into `VideoError`."""
    try:
        yield
    except VideoError:
        raise
    except (av.FFmpegError, OSError) as err:
        raise VideoError(f"it cannot be read ({err.strerror or type(err).__name__})") from err
    except (ValueError, MemoryError) as err:  # sizes and formats that no filter takes
        raise VideoError(f"it cannot be read ({err})") from err
