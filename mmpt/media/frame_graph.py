"""Converts decoded frames into the input of S3D with FFmpeg's own filters: 224 x 224 RGB frames, 30
per second.

The released features were made with FFmpeg's filters `fps=30`, `scale`, `crop` and RGB24 output.
The same filters run here and give the same bits. Three changes make them faster without changing a
value (tests/media/test_video_reader.py):

- libswscale scales to RGB with a slow routine. For the usual YUV 4:2:0, the graph therefore scales
  to YUV 4:2:2, which has exactly the chroma resolution that the slow routine works with. Only the
  cropped frame is converted to RGB. This takes 0.4 instead of 0.7 ms.
- The frame rate filter comes first if it drops frames, and last if it repeats them. No frame is
  scaled for nothing.
- Each graph uses one thread, because extraction runs as many graphs as there are cores.

Like FFmpeg's command, the graph rotates frames as the file's display matrix says. The original
computed the target size before the rotation, which distorted rotated videos. Here the target size
is computed for the upright frame.
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
_UNSPECIFIED = 2  # FFmpeg's number of an unknown colour space
_JPEG_RANGE = 2  # FFmpeg's number of the full colour range

Filter = tuple[str, str]
"""Name and arguments of an FFmpeg filter."""


def scaled_size(height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) with 224 for the shorter side and the longer one rounded down."""
    if height >= width:
        return int(height * SIZE / width), SIZE
    return SIZE, int(width * SIZE / height)


class FrameLayout(NamedTuple):
    """The size and format of a decoded frame. A graph takes frames of one layout."""

    width: int
    height: int
    pix_fmt: str
    colour_space: int
    colour_range: int
    display_matrix: tuple[int, ...]


def layout_of(frame: av.VideoFrame) -> FrameLayout:
    """Returns the layout of a decoded frame."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    matrix = tuple(memoryview(side_data).cast("i").tolist()) if side_data else ()
    return FrameLayout(
        frame.width,
        frame.height,
        frame.format.name,
        frame.colorspace,
        frame.color_range,
        matrix,
    )


def _rotation_filters(matrix: tuple[int, ...]) -> list[Filter]:
    """Returns the filters that turn a frame with this display matrix upright.

    They are the filters that FFmpeg's command inserts.

    Args:
        matrix: 3 x 3 numbers, row by row, or empty.
    """
    # The rotation is the angle of the first row, after each column is divided by its length.
    columns = [matrix[0::3][:2], matrix[1::3][:2]]
    lengths = [math.hypot(*column) for column in columns]
    if not all(lengths):
        return []
    radians = math.atan2(matrix[1] / lengths[1], matrix[0] / lengths[0])
    degrees = round(math.degrees(radians)) % 360
    if degrees == 90:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    vertical_flip = [("vflip", "")] if matrix[4] < 0 else []
    if degrees == 180:
        horizontal_flip = [("hflip", "")] if matrix[0] < 0 else []
        return horizontal_flip + vertical_flip
    if degrees == 270:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if degrees:
        return [("rotate", f"{degrees}*PI/180")]
    return vertical_flip


def _image_filters(layout: FrameLayout, hflip: bool) -> tuple[list[Filter], int]:
    """Returns the filters that rotate, scale, crop and convert a frame.

    Returns:
        The filters, and the number of surplus columns on each side of the resulting RGB frames.
    """
    rotation = _rotation_filters(layout.display_matrix)
    is_transposed = any(name == "transpose" for name, _ in rotation)
    if is_transposed:
        height, width = scaled_size(layout.width, layout.height)
    else:
        height, width = scaled_size(layout.height, layout.width)
    left = int((width - SIZE) / 2)
    top = int((height - SIZE) / 2)
    mirror = [("hflip", "")] if hflip else []
    surplus = 0
    if layout.pix_fmt == "yuv420p" and layout.colour_range != _JPEG_RANGE and width % 2 == 0:
        # The fast way, through YUV 4:2:2. Two columns share their chroma, so a crop must begin at
        # an even column. If it does not, one more column is kept on each side.
        surplus = left % 2
        crop_width = SIZE + 2 * surplus
        steps = [
            ("scale", f"{width}:{height}:flags={_EXACT}"),
            ("format", "yuv422p"),
            *mirror,
            ("crop", f"{crop_width}:{SIZE}:{left - surplus}:{top}"),
            ("scale", f"{crop_width}:{SIZE}:flags={_EXACT}"),
        ]
    else:
        steps = [
            ("scale", f"{width}:{height}"),
            *mirror,
            ("crop", f"{SIZE}:{SIZE}:{left}:{top}"),
        ]
    return [*rotation, *steps, ("format", "rgb24")], surplus


class FrameGraph:
    """A filter graph that turns decoded frames into RGB frames, uint8 [224, 224, 3].

    Args:
        layout: the layout of all frames that will be pushed.
        time_base: length of one unit of their `pts`, in seconds.
        start_s: time of the first output frame. If the first frame comes later, it is repeated.
        hflip: mirror the frames horizontally.
        drops_frames: the video has more than 30 frames per second.
    """

    def __init__(
        self,
        layout: FrameLayout,
        time_base: Fraction,
        start_s: float,
        *,
        hflip: bool = False,
        drops_frames: bool = False,
    ):
        image_filters, self._surplus = _image_filters(layout, hflip)
        rate_filter = ("fps", f"fps={FPS}:start_time={start_s:.9f}")
        filters = [*image_filters, rate_filter]
        if drops_frames:
            filters = [rate_filter, *image_filters]
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
        nodes += [self._graph.add(*step) for step in [*filters, ("buffersink", "")]]
        self._graph.link_nodes(*nodes).configure()

    def push(self, frame: av.VideoFrame | None) -> Iterator[np.ndarray]:
        """Adds a decoded frame and yields the output frames that are complete.

        Args:
            frame: the frame, or None at the end of the stream.
        """
        self._graph.push(frame)
        while True:
            try:
                output = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            plane = output.planes[0]
            rows = np.frombuffer(memoryview(plane), dtype=np.uint8).reshape(SIZE, plane.line_size)
            # A row has surplus columns on both sides and may have padding at its end.
            left = 3 * self._surplus
            yield rows[:, left : left + 3 * SIZE].reshape(SIZE, SIZE, 3)
