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
than the sound are preceded by copies of the first one. A clock that jumps is corrected (clock.py).
Pixel aspect ratios are ignored, as in the original.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mmpt.errors import DataError
from mmpt.media.clock import Clock
from mmpt.media.frame_graph import FPS, SIZE, FrameGraph, layout_of

MAX_GAP_S = 3600
"""Two pictures further apart than this are broken timestamps: each missing second would become a
clip.
"""
MAX_STREAM_GAP_S = 300
"""The same in formats whose clock may start again, such as MPEG-TS. There it is a jump."""
MAX_DAMAGED_SHARE = 2 / 3
"""Share of a video's packets. FFmpeg's command gives up at the same share."""
_TS_DISCONT = 0x0200  # flag of such formats in FFmpeg's numbers (AVFMT_TS_DISCONT)
_NUM_NAMED = 5  # a note has the times of so many jumps
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
        self._jumps_s: list[float] = []
        self._end_s = 0.0

    def clips(self) -> Iterator[np.ndarray]:
        """Yields uint8 [30, 224, 224, 3] for each second; the last one is filled up with black
        pictures.

        Raises:
            VideoError: not a video, no picture in it, or broken beyond use; also after some clips.
        """
        frames = self.frames()
        while True:
            clip, filled = np.zeros((FPS, SIZE, SIZE, 3), dtype=np.uint8), 0
            for frame in itertools.islice(frames, FPS):
                clip[filled] = frame
                filled += 1
            if not filled:
                return
            yield clip

    def frames(self) -> Iterator[np.ndarray]:
        """Yields pictures uint8 [224, 224, 3], 30 per second; each is valid until the next one is
        asked for.

        Raises:
            VideoError: as for `clips`.
        """
        # Local files only: a playlist that calls itself a video must not fetch anything.
        options = {"protocol_whitelist": "file"}
        with as_video_error():
            if self.path.stat().st_size == 0:
                raise VideoError("the file is empty")
            with av.open(f"file:{self.path}", metadata_errors="ignore", options=options) as file:
                stream = choose_stream(file)
                stream.codec_context.thread_count = self._num_threads
                stream.codec_context.thread_type = "AUTO" if self._num_threads > 1 else "NONE"
                for frame in self._filtered(file, stream):
                    self.num_frames += 1
                    yield frame
                self._judge(file, stream)

    def _filtered(
        self, file: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[np.ndarray]:
        """Decodes, and runs frames through a graph; a frame of another size or kind closes it and
        starts the next.
        """
        graph, layout = None, None
        time_base = stream.time_base or Fraction(1, av.time_base)
        rate = stream.average_rate or FPS
        # Times count from the container's start, in units of `time_base`.
        start = round(Fraction(file.start_time or 0, av.time_base) / time_base)
        usual = max(1, round(1 / ((stream.average_rate or stream.guessed_rate or FPS) * time_base)))
        may_jump = bool(file.format.flags & _TS_DISCONT)
        clock = Clock(start, time_base, max_gap_s=MAX_STREAM_GAP_S if may_jump else MAX_GAP_S)
        self._jumps_s = clock.jumps_s
        frames = itertools.chain(self._decoded(file, stream), [None])
        for frame, following in itertools.pairwise(frames):
            assert frame is not None  # only the last `following` is
            frame.duration = frame.duration or usual
            shown = clock.place(_time_of(frame), frame.duration, _time_of(following))
            if clock.is_ahead and not may_jump:
                raise VideoError(f"its timestamps are broken: they jump by more than {MAX_GAP_S} s")
            frame.pts = shown
            self._end_s = float((shown + frame.duration) * time_base)
            found = layout_of(frame)
            if graph is None or found != layout:
                if graph is not None:
                    yield from graph.push(None)
                start_s = self.num_frames / FPS
                graph = FrameGraph(found, time_base, start_s, hflip=self._hflip, is_fast=rate > FPS)
                layout = found
            yield from graph.push(frame)
        if graph is not None:
            yield from graph.push(None)

    def _decoded(
        self, file: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Yields frames in the order of showing; what cannot be decoded is counted and left out."""
        packets = file.demux(stream)
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

    def _judge(self, file: av.container.InputContainer, stream: av.VideoStream) -> None:
        """Decides whether what came out is the video; notes what is missing."""
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
        announced_s = (file.duration or 0) / av.time_base
        if stream.duration and stream.time_base:
            announced_s = float(stream.duration * stream.time_base)
        elif announced_s > (start_s := max(0, file.start_time or 0) / av.time_base):
            announced_s -= start_s  # Matroska announces the last time, not the length
        if num_jumps := len(self._jumps_s):
            # `announced_s` is then a difference of unrelated times.
            times = "1 time" if num_jumps == 1 else f"{num_jumps} times"
            places = ", ".join(f"{at_s:.1f}" for at_s in self._jumps_s[:_NUM_NAMED])
            more = ", ..." if num_jumps > _NUM_NAMED else ""
            self.notes.append(
                f"its clock jumps {times} (at {places}{more} s); the pictures after a jump were "
                "moved to follow those before it"
            )
        elif announced_s - self._end_s > max(_SHORT_S, 0.05 * announced_s):
            self.notes.append(
                f"its pictures end at {self._end_s:.1f} s, but {announced_s:.1f} s were announced"
            )


def _time_of(frame: av.VideoFrame | None) -> int | None:
    """Returns the time that the file gives a frame, if any."""
    if frame is None:
        return None
    return frame.dts if frame.pts is None else frame.pts


def choose_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Returns the stream that FFmpeg deems best, or the first that is no cover picture."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        sound = " (audio only)" if container.streams.audio else ""
        raise VideoError(f"it holds no pictures{sound}")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


@contextmanager
def as_video_error() -> Iterator[None]:
    """Turns what FFmpeg and the file system raise into `VideoError`."""
    try:
        yield
    except VideoError:
        raise
    except (av.FFmpegError, OSError, ValueError, MemoryError) as err:
        # ValueError and MemoryError: sizes and formats that no filter takes.
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise VideoError(f"it cannot be read ({reason})") from err
