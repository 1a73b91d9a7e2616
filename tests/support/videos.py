"""Draws and encodes videos. A formula gives each pixel at each time, so decoding can be checked.

The picture at time t has one of eight colours (a new one every second), a white square that crosses
it from left to right once a second, and a black corner at the top left that distinguishes
rotations and mirrored pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

COLOURS = np.array(
    [
        *([200, 40, 40], [40, 180, 60], [50, 70, 210], [210, 190, 40]),
        *([170, 60, 190], [40, 190, 190], [230, 130, 30], [120, 120, 120]),
    ],
    dtype=np.uint8,
)
WHITE = 235
TIME_BASE = Fraction(1, 90_000)
NTSC = Fraction(30_000, 1001)
# Fast, and accurate enough that colours differ by only a few levels from the drawn ones.
OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "10"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "0"},
}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The encoding of a video."""

    width: int = 320
    height: int = 240
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    num_b_frames: int = 2
    rotation: int = 0
    """Degrees counter-clockwise that a player turns the picture (the flag of phone videos); mp4 and
    mov only.
    """
    hflip: bool = False
    vflip: bool = False
    with_audio: bool = False
    keyframe_interval: int = 12


def draw(time_s: float, width: int, height: int) -> np.ndarray:
    """Returns the picture at a time, uint8 [height, width, 3]."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = COLOURS[int(time_s) % len(COLOURS)]
    side = min(width, height) // 4
    left, top = round((time_s % 1) * (width - side)), (height - side) // 2
    picture[top : top + side, left : left + side] = WHITE
    picture[: height * 34 // 100, : width * 34 // 100] = (
        0  # so large that some of it is left after the crop
    )
    return picture


def regular_times(seconds: float, fps: Fraction | int = 30) -> list[Fraction]:
    """Returns the times of the frames of a video with a constant frame rate."""
    return [Fraction(number) / fps for number in range(round(seconds * fps))]


def write_video(
    path: Path, times: Sequence[Fraction], clip: Clip | None = None
) -> Path:
    """Encodes `draw(t)` for each t in `times`, and returns the path.

    A frame is shown until the next one. The last frame is shown as long as the frame before it.
    """
    clip = clip or Clip()
    last = times[-1] - times[-2] if len(times) > 1 else Fraction(1, 30)
    ends = [*times[1:], times[-1] + last]
    with av.open(str(path), "w") as container:
        rate = (len(times) / (ends[-1] - times[0])).limit_denominator(1001)
        stream = container.add_stream(
            clip.codec, rate=rate, options=OPTIONS.get(clip.codec, {})
        )
        stream.width, stream.height, stream.pix_fmt = (
            clip.width,
            clip.height,
            clip.pix_fmt,
        )
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.gop_size = clip.keyframe_interval
        if clip.codec == "libx264":
            stream.codec_context.max_b_frames = clip.num_b_frames
        if clip.rotation or clip.hflip or clip.vflip:
            stream.set_display_rotation(
                clip.rotation, hflip=clip.hflip, vflip=clip.vflip
            )
        if clip.with_audio:
            codec = "aac" if path.suffix != ".webm" else "libopus"
            sound = container.add_stream(codec, rate=48_000)
        for time, end in zip(times, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(
                draw(float(time), clip.width, clip.height), "rgb24"
            )
            frame = frame.reformat(format=clip.pix_fmt)
            frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
            frame.duration = round((end - time) / TIME_BASE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if clip.with_audio:
            _add_sound(container, sound, float(ends[-1]))
    return path


def write_audio(path: Path, seconds: float = 2) -> Path:
    """Writes a file with sound and no picture."""
    with av.open(str(path), "w") as container:
        _add_sound(container, container.add_stream("aac", rate=48_000), seconds)
    return path


def truncate(source: Path, target: Path, share: float) -> Path:
    """Writes the first part of a file, like an interrupted download."""
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def _add_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, seconds: float
) -> None:
    for begin in range(0, int(seconds * 48_000), 960):
        wave = 0.1 * np.sin(2 * np.pi * 440 * (begin + np.arange(960)) / 48_000)
        samples = np.stack([wave, wave]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = (
            48_000,
            begin,
            Fraction(1, 48_000),
        )
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
