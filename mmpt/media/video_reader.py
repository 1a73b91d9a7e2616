"""Reads a video file as the clips that encoders take, one clip at a time.

The decoder is PyAV, the Python binding of FFmpeg's libraries:

- Speed: libavcodec decodes about 2,600 frames/s of H.264 at 640 x 360 on one core
  (benchmarks/extract.py). It releases the interpreter's lock, so threads decode in parallel.
  torchcodec calls the same libavcodec and is no faster on CPUs.
- Installation: PyAV's wheels contain FFmpeg (for Linux, macOS and Windows). torchcodec needs
  FFmpeg's shared libraries on the system and a release that matches the installed torch.
- Licence: PyAV is BSD-3-Clause. The FFmpeg inside its wheel is LGPL with GPL parts (x264). MMPT
  uses it but does not redistribute it.
- Filters: the released features were made with FFmpeg's filters, and PyAV includes them
  (frame_graph.py).

Times count from the container's start, as in a video player and therefore as in captions. If the
video stream begins later than the audio, copies of its first frame fill the beginning. Timestamps
that jump are corrected (clock.py). Pixel aspect ratios are ignored, as in the original code.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mmpt.errors import DataError
from mmpt.media.clip_stream import ClipStream
from mmpt.media.clock import Clock
from mmpt.media.frame_graph import FPS, S3D_SAMPLING, Sampling

MAX_GAP_S = 3600
"""Longest gap between two frames, in seconds. A longer gap means that the timestamps are broken;
filling it would make a clip of every missing second.
"""
MAX_STREAM_GAP_S = 300
"""Longest gap, in seconds, in formats whose clock may restart, such as MPEG-TS. There, a longer gap
is a jump of the clock.
"""
MAX_DAMAGED_SHARE = 2 / 3
"""Share of packets that may fail to decode. FFmpeg's command gives up at the same share."""
_AVFMT_TS_DISCONT = 0x0200  # FFmpeg's flag of formats whose clock may restart
_MAX_LISTED = 5  # jumps whose times a note lists
_SHORT_S = 1.0  # a video that ends this long before its declared end gets a note


class VideoError(DataError):
    """A video file that cannot be read. The message is the reason, without the file's name."""


class VideoFile:
    """A video that is read once, from the beginning, for one or several encoders.

    Args:
        path: the video file.
        hflip: mirror the frames horizontally.
        num_threads: number of decoder threads.
        samplings: rate, size and number of the frames of a clip, for each encoder. The default is
            one second for S3D.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        hflip: bool = False,
        num_threads: int = 1,
        samplings: Sequence[Sampling] = (S3D_SAMPLING,),
    ):
        self.path = Path(path)
        self.samplings = samplings
        self.notes: list[str] = []
        """After reading: the problems of a file that could be read nevertheless."""
        self.failed: dict[int, str] = {}
        """Index of a sampling without clips -> the reason. The other samplings continue."""
        self._streams: list[ClipStream] = []
        self._hflip = hflip
        self._num_threads = num_threads
        self._num_packets = 0
        self._num_damaged = 0  # packets that could not be decoded
        self._num_corrupt = 0  # frames that were decoded from damaged data
        self._jumps_s: list[float] = []
        self._end_s = 0.0  # end of the last frame

    @property
    def num_frames(self) -> int:
        """Number of frames returned so far, of all samplings."""
        return sum(stream.num_frames for stream in self._streams)

    def clips(self) -> Iterator[np.ndarray]:
        """Yields uint8 [frames, H, W, 3] for each feature row: for S3D [30, 224, 224, 3].

        There must be one sampling. The last clip may have too few frames. It is filled up with
        black frames if `sampling.size` is set, as for S3D, and otherwise with copies of its last
        frame.

        Raises:
            VideoError: the file is not a video, has no frames, or is too damaged. The error may
                come after some clips.
        """
        assert len(self.samplings) == 1
        for _, clip in self.clips_of_each():
            yield clip

    def clips_of_each(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the clips of all samplings as pairs (index of the sampling, clip).

        The file is decoded once. The clips of a sampling are the same as without the others.

        Raises:
            VideoError: as for `clips`. If only some samplings have no clips, see `failed`.
        """
        for index, frame in self._frames_of_each():
            clip = self._streams[index].add_to_clip(frame)
            if clip is not None:
                yield index, clip
        for index, stream in enumerate(self._streams):
            clip = stream.last_clip()
            if clip is not None and index not in self.failed:
                yield index, clip

    def frames(self) -> Iterator[np.ndarray]:
        """Yields RGB frames, uint8 [H, W, 3], at the constant rate of the only sampling.

        The memory of a frame is reused once the next one is asked for.

        Raises:
            VideoError: as for `clips`.
        """
        assert len(self.samplings) == 1
        for _, frame in self._frames_of_each():
            yield frame

    def _frames_of_each(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yields pairs (index of the sampling, frame) in the order of decoding."""
        # Only local files are opened: a playlist with the name of a video must not fetch anything.
        options = {"protocol_whitelist": "file"}
        with as_video_error():
            if self.path.stat().st_size == 0:
                raise VideoError("the file is empty")
            with av.open(
                f"file:{self.path}", metadata_errors="ignore", options=options
            ) as file:
                stream = choose_stream(file)
                decoder = stream.codec_context
                decoder.thread_count = self._num_threads
                decoder.thread_type = "AUTO" if self._num_threads > 1 else "NONE"
                yield from self._filter(file, stream)
                self._check_result(file, stream)

    def _filter(
        self, file: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes the stream, corrects its timestamps, and yields the frames of the encoders."""
        # A file is read from its first packet to its last one, without seeking: many files have no
        # usable index, and every second is wanted. Each decoded frame gets a corrected time, and
        # FFmpeg's filters turn frames at any times into frames at a constant rate.
        #
        # All times are integers in units of `time_base` and count from the container's start.
        time_base = stream.time_base or Fraction(1, av.time_base)
        usual_duration = _usual_duration(stream, time_base)
        may_jump = bool(file.format.flags & _AVFMT_TS_DISCONT)
        clock = _new_clock(file, time_base, may_jump)
        self._jumps_s = clock.jumps_s
        frame_rate = stream.average_rate or FPS
        for sampling in self.samplings:
            drops_frames = frame_rate > sampling.frame_rate
            self._streams.append(
                ClipStream(
                    sampling, time_base, hflip=self._hflip, drops_frames=drops_frames
                )
            )
        # The clock needs the next timestamp to decide whether this one is wrong.
        frames = itertools.chain(self._decode(file, stream), [None])
        for frame, following in itertools.pairwise(frames):
            assert frame is not None  # only the last `following` is None
            # Step 1: give the frame the time at which it is shown.
            frame.duration = frame.duration or usual_duration
            frame.pts = clock.place(
                _timestamp(frame), frame.duration, _timestamp(following)
            )
            if clock.is_too_far and not may_jump:
                raise VideoError(
                    f"its timestamps are broken: they jump by more than {MAX_GAP_S} s"
                )
            end = frame.pts + frame.duration
            self._end_s = float(end * time_base)
            # Step 2: a frame gives none, one or several output frames of each stream.
            yield from self._push(frame)
        # Step 3: the rate filters still hold the last frame.
        yield from self._push(None)

    def _push(self, frame: av.VideoFrame | None) -> Iterator[tuple[int, np.ndarray]]:
        """Adds a decoded frame, or None at the end, to the stream of each sampling."""
        for index, stream in enumerate(self._streams):
            if index in self.failed:
                continue
            try:
                with as_video_error():
                    for output in stream.push(frame):
                        yield index, output
            except VideoError as err:
                self._fail(index, err)

    def _fail(self, index: int, error: VideoError) -> None:
        """Records that a sampling has no clips. Raises the error if no other one is left."""
        self.failed[index] = str(error)
        if len(self.failed) == len(self.samplings):
            raise error

    def _decode(
        self, file: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Yields the frames in display order. Packets that cannot be decoded are skipped and
        counted.
        """
        packets = file.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as err:
                # The rest of the file cannot be read. The decoder still holds some frames.
                self.notes.append(
                    f"reading stops after {self._end_s:.1f} s ({err.strerror})"
                )
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

    def _check_result(
        self, file: av.container.InputContainer, stream: av.VideoStream
    ) -> None:
        """Raises VideoError if too little was decoded. Otherwise, notes what is missing."""
        if self._num_damaged > MAX_DAMAGED_SHARE * self._num_packets:
            raise VideoError(
                f"{self._num_damaged} of its {self._num_packets} packets cannot be decoded"
            )
        for index, one in enumerate(self._streams):
            if not one.num_frames and index not in self.failed:
                self._fail(index, VideoError("no frame could be decoded"))
        if self._num_damaged or self._num_corrupt:
            self.notes.append(
                f"{self._num_damaged} of {self._num_packets} packets could not be decoded, "
                f"{self._num_corrupt} frames are damaged"
            )
        # Compare the end of the frames with what the file declares.
        declared_s = _declared_length(file, stream)
        missing_s = declared_s - self._end_s
        if self._jumps_s:
            # The declared length is then a difference of unrelated times, so it is not compared.
            self.notes.append(_describe_jumps(self._jumps_s))
        elif missing_s > max(_SHORT_S, 0.05 * declared_s):
            self.notes.append(
                f"its frames end at {self._end_s:.1f} s, but the file declares {declared_s:.1f} s"
            )


def _usual_duration(stream: av.VideoStream, time_base: Fraction) -> int:
    """Returns the duration of a frame at the stream's frame rate, in units of `time_base`."""
    rate = stream.average_rate or stream.guessed_rate or FPS
    duration = round(1 / (rate * time_base))
    return max(1, duration)


def _new_clock(
    file: av.container.InputContainer, time_base: Fraction, may_jump: bool
) -> Clock:
    """Returns a clock that counts from the start of the file.

    Args:
        may_jump: the clock of this format may restart.
    """
    start_s = Fraction(file.start_time or 0, av.time_base)
    start = round(start_s / time_base)
    max_gap_s = MAX_STREAM_GAP_S if may_jump else MAX_GAP_S
    return Clock(start, time_base, max_gap_s=max_gap_s)


def _describe_jumps(jumps_s: Sequence[float]) -> str:
    """Returns a note about the times at which the clock of a file jumps."""
    num_jumps = len(jumps_s)
    times = "1 time" if num_jumps == 1 else f"{num_jumps} times"
    places = [f"{at_s:.1f}" for at_s in jumps_s[:_MAX_LISTED]]
    if num_jumps > _MAX_LISTED:
        places.append("...")
    return (
        f"its clock jumps {times} (at {', '.join(places)} s); the frames after a jump were moved "
        "to follow the frames before it"
    )


def _declared_length(
    file: av.container.InputContainer, stream: av.VideoStream
) -> float:
    """Returns the length of a video in seconds, as its file declares it; 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    length = file.duration or 0
    start = max(0, file.start_time or 0)
    # Matroska declares the last time instead of the length.
    if length > start:
        length -= start
    return length / av.time_base


def _timestamp(frame: av.VideoFrame | None) -> int | None:
    """Returns the timestamp that the file gives a frame, or None if it gives none."""
    if frame is None:
        return None
    return frame.dts if frame.pts is None else frame.pts


def choose_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Returns the video stream that FFmpeg prefers, unless it is a cover picture.

    Raises:
        VideoError: there is no video stream.
    """
    streams = []
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            streams.append(stream)
    if not streams:
        sound = " (audio only)" if container.streams.audio else ""
        raise VideoError(f"it has no video stream{sound}")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


@contextmanager
def as_video_error() -> Iterator[None]:
    """Turns the errors of FFmpeg and of the file system into `VideoError`."""
    try:
        yield
    except VideoError:
        raise
    except (av.FFmpegError, OSError, ValueError, MemoryError) as err:
        # Filters raise ValueError and MemoryError for sizes and formats that they do not support.
        reason = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise VideoError(f"it cannot be read ({reason})") from err
