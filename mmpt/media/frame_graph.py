"""The picture part of S3D's input: FFmpeg's own filters turn decoded frames into 30 pictures a
second of 224 x 224 RGB.

The released features were made with FFmpeg's filters `fps=30`, `scale`, `crop` and RGB24 output, so
these run here too, bit for bit. Three things make them faster without changing a value
(tests/media/test_video_reader.py):
- Scaling into RGB uses a slow routine of libswscale. For the usual YUV 4:2:0 the graph scales into
  YUV 4:2:2, which has just the chroma that the slow routine works with, and converts the cropped
  picture only: 0.4 instead of 0.7 ms.
- The frame rate filter comes first if it drops pictures and last if it repeats them: none is scaled
  in vain.
- One thread per graph: extraction has as many graphs as cores.

Like FFmpeg's command, the graph turns pictures as the file's display matrix says. Unlike the
original, which asked for the size before turning and squeezed such pictures, it computes the target
size from the picture as it is shown.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.filter
import numpy as np

FPS = 30
SIZE = 224
_EXACT = "bicubic+accurate_rnd"
_UNSPECIFIED = 2  # colour space in FFmpeg's numbers
_JPEG_RANGE = 2


def scaled_size(height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) with the shorter side at 224 and the longer one rounded down."""
    if height >= width:
        return int(height * SIZE / width), SIZE
    return SIZE, int(width * SIZE / height)


class FrameLayout(NamedTuple):
    """Layout of the frames of a graph. A frame of another layout needs another graph."""

    width: int
    height: int
    pix_fmt: str
    colour_space: int
    colour_range: int
    display_matrix: tuple[int, ...]


def layout_of(frame: av.VideoFrame) -> FrameLayout:
    """Describes a decoded frame."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    matrix = tuple(memoryview(side_data).cast("i").tolist()) if side_data else ()
    colours = frame.colorspace, frame.color_range
    return FrameLayout(frame.width, frame.height, frame.format.name, *colours, matrix)


def _turning(matrix: tuple[int, ...]) -> list[tuple[str, str]]:
    """Returns the filters (name, arguments) that show a picture with this display matrix upright,
    as FFmpeg's command inserts them.
    """
    across, down = (math.hypot(*matrix[axis : axis + 4 : 3]) for axis in (0, 1))
    if not across or not down:
        return []
    degrees = round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across))) % 360
    if degrees == 90:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    if degrees == 180:
        return [("hflip", "")] * (matrix[0] < 0) + [("vflip", "")] * (matrix[4] < 0)
    if degrees == 270:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if degrees:
        return [("rotate", f"{degrees}*PI/180")]
    return [("vflip", "")] * (matrix[4] < 0)


def _picturing(layout: FrameLayout, hflip: bool) -> tuple[list[tuple[str, str]], int]:
    """Returns the filters from decoded to RGB pictures of 224 rows, and the columns to cut off on
    either side.
    """
    turning = _turning(layout.display_matrix)
    is_turned = any(name == "transpose" for name, _ in turning)
    height, width = layout.height, layout.width
    height, width = scaled_size(width, height) if is_turned else scaled_size(height, width)
    left, top = int((width - SIZE) / 2), int((height - SIZE) / 2)
    mirror = [("hflip", "")] if hflip else []
    if layout.pix_fmt == "yuv420p" and layout.colour_range != _JPEG_RANGE and width % 2 == 0:
        extra = left % 2  # chroma columns come in pairs
        wide = SIZE + 2 * extra
        steps = [("scale", f"{width}:{height}:flags={_EXACT}"), ("format", "yuv422p"), *mirror]
        steps.append(("crop", f"{wide}:{SIZE}:{left - extra}:{top}"))
        steps.append(("scale", f"{wide}:{SIZE}:flags={_EXACT}"))
    else:
        extra = 0
        steps = [("scale", f"{width}:{height}"), *mirror]
        steps.append(("crop", f"{SIZE}:{SIZE}:{left}:{top}"))
    return [*turning, *steps, ("format", "rgb24")], extra


class FrameGraph:
    """Filters between a decoder and pictures uint8 [224, 224, 3] at 30 per second.

    Args:
        layout: of the frames that will be pushed.
        time_base: seconds of one unit of their `pts`.
        start_s: the time of the first picture to come out; the first frame is repeated if it comes
            later.
        hflip: mirror the pictures.
        is_fast: the video has more than 30 frames per second.
    """

    def __init__(
        self,
        layout: FrameLayout,
        time_base: Fraction,
        start_s: float,
        *,
        hflip: bool = False,
        is_fast: bool = False,
    ):
        picturing, self._cut = _picturing(layout, hflip)
        rate = [("fps", f"fps={FPS}:start_time={start_s:.9f}")]
        steps = [*rate, *picturing] if is_fast else [*picturing, *rate]
        self._graph = av.filter.Graph()
        self._graph.threads = 1
        source = {
            "video_size": f"{layout.width}x{layout.height}",
            "pix_fmt": layout.pix_fmt,
            "time_base": str(time_base),
            "pixel_aspect": "1/1",
            "range": str(layout.colour_range),
        }
        if layout.colour_space != _UNSPECIFIED:
            source["colorspace"] = str(layout.colour_space)
        nodes = [self._graph.add("buffer", **source)]
        nodes += [self._graph.add(*step) for step in [*steps, ("buffersink", "")]]
        self._graph.link_nodes(*nodes).configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[np.ndarray]:
        """Puts a frame in (None: the last one is in) and yields the pictures that are now due."""
        self._graph.push(frame)
        while True:
            try:
                picture = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            plane = picture.planes[0]
            rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(SIZE, plane.line_size)
            left = 3 * self._cut
            yield rows[:, left : left + 3 * SIZE].reshape(SIZE, SIZE, 3)
