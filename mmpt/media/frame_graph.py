"""Converts decoded frames into the input of an encoder with FFmpeg's own filters: RGB frames at a
constant rate.

S3D takes 224 x 224 pixels, 30 times per second. Other encoders take whole frames at another rate,
because they have their own way to resize and crop them.

The released S3D features were made with FFmpeg's filters `fps=30`, `scale`, `crop` and RGB24
output. The same filters run here and give the same bits. Three changes make them faster without
changing a value (tests/media/test_video_reader.py):

- libswscale scales to RGB with a slow routine. For the usual YUV 4:2:0, the graph therefore scales
  to YUV 4:2:2, which has exactly the chroma resolution that the slow routine works with. Only the
  cropped frame is converted to RGB. This takes 0.4 instead of 0.7 ms.
- The frame rate filter comes first if it drops frames, and last if it repeats them, so that no
  frame is scaled unnecessarily.
- Each graph uses one thread, because extraction runs as many graphs as there are cores.

Like FFmpeg's command, the graph rotates frames according to the file's display matrix. The original
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


class Sampling(NamedTuple):
    """The frames from which an encoder computes a feature row. The defaults are S3D's."""

    frame_rate: Fraction | float = Fraction(FPS)
    """Frames per second of video."""
    num_frames: int = FPS
    """Consecutive frames that make a row. Each frame belongs to one row."""
    size: int | None = SIZE
    """Scale the shorter side to this size, and crop the middle to a square. None: whole frames."""

    @property
    def fps(self) -> float:
        """Feature rows per second of video."""
        return float(self.frame_rate / self.num_frames)


Filter = tuple[str, str]
"""Name and arguments of an FFmpeg filter."""


def scaled_size(height: int, width: int, size: int = SIZE) -> tuple[int, int]:
    """Returns (height, width) with `size` for the shorter side and the longer one rounded down."""
    if height >= width:
        scaled_height = int(height * size / width)
        return scaled_height, size
    scaled_width = int(width * size / height)
    return size, scaled_width


S3D_SAMPLING = Sampling()


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
    matrix: list[int] = []
    if side_data:
        matrix = memoryview(side_data).cast("i").tolist()
    return FrameLayout(
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        colour_space=frame.colorspace,
        colour_range=frame.color_range,
        display_matrix=tuple(matrix),
    )


def _rotation_filters(matrix: tuple[int, ...]) -> list[Filter]:
    """Returns the filters that turn a frame with this display matrix upright.

    They are the filters that FFmpeg's command inserts.

    Args:
        matrix: 3 x 3 numbers, row by row, or empty.
    """
    if not matrix:
        return []
    # A pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = matrix[:5]
    first_length = math.hypot(a, c)
    second_length = math.hypot(b, d)
    if first_length == 0 or second_length == 0:
        return []
    # The rotation is the angle of the first row, after each column is divided by its length.
    radians = math.atan2(b / second_length, a / first_length)
    degrees = round(math.degrees(radians)) % 360
    # Right angles need no interpolation: pixels change places. The signs of the other numbers say
    # whether the frame is also mirrored.
    if degrees == 90:
        return [("transpose", "cclock_flip" if c > 0 else "clock")]
    if degrees == 270:
        return [("transpose", "clock_flip" if c < 0 else "cclock")]
    if degrees not in (0, 180):
        return [("rotate", f"{degrees}*PI/180")]
    flips = []
    if degrees == 180 and a < 0:
        flips.append(("hflip", ""))
    if d < 0:
        flips.append(("vflip", ""))
    return flips


def _whole_frame_filters(
    layout: FrameLayout, hflip: bool, shape: tuple[int, int] | None
) -> list[Filter]:
    """Returns the filters that rotate and convert a frame, and scale it if a shape is given.

    Args:
        shape: height and width of the result; None: the size of the upright frame.
    """
    filters = _rotation_filters(layout.display_matrix)
    if shape is not None:
        height, width = shape
        filters.append(("scale", f"{width}:{height}"))
    if hflip:
        filters.append(("hflip", ""))
    return [*filters, ("format", "rgb24")]


def _image_filters(
    layout: FrameLayout, hflip: bool, size: int
) -> tuple[list[Filter], int]:
    """Returns the filters that rotate, scale, crop and convert a frame for S3D.

    Returns:
        The filters, and the number of surplus columns on each side of the resulting RGB frames.
    """
    # Turn the frame upright. A quarter turn exchanges its sides.
    filters = _rotation_filters(layout.display_matrix)
    height, width = scaled_size(layout.height, layout.width, size)
    if any(name == "transpose" for name, _ in filters):
        height, width = scaled_size(layout.width, layout.height, size)
    # The crop is the middle of the scaled frame.
    left = int((width - size) / 2)
    top = int((height - size) / 2)
    mirror = [("hflip", "")] if hflip else []
    surplus = 0
    has_limited_range = layout.colour_range != _JPEG_RANGE
    if layout.pix_fmt == "yuv420p" and has_limited_range and width % 2 == 0:
        # The fast way: scale to YUV 4:2:2, crop, and convert what is left to RGB. Two columns share
        # their chroma, so a crop must begin at an even column. If it does not, one more column is
        # kept on each side.
        surplus = left % 2
        left -= surplus
        crop_width = size + 2 * surplus
        filters += [
            ("scale", f"{width}:{height}:flags={_EXACT}"),
            ("format", "yuv422p"),
            *mirror,
            ("crop", f"{crop_width}:{size}:{left}:{top}"),
            ("scale", f"{crop_width}:{size}:flags={_EXACT}"),
        ]
    else:
        # The way of the original: FFmpeg converts to RGB while it scales.
        filters += [
            ("scale", f"{width}:{height}"),
            *mirror,
            ("crop", f"{size}:{size}:{left}:{top}"),
        ]
    filters.append(("format", "rgb24"))
    return filters, surplus


class FrameGraph:
    """A filter graph that turns decoded frames into RGB frames, uint8 [H, W, 3].

    Args:
        layout: the layout of all frames that will be pushed.
        time_base: length of one unit of their `pts`, in seconds.
        start_s: time of the first output frame. If the first frame comes later, it is repeated.
        hflip: mirror the frames horizontally.
        drops_frames: the video has more frames per second than `sampling`.
        sampling: rate and size of the output frames.
        shape: height and width of the frames of an earlier graph; None for the first graph. Not
            used if `sampling` has a size.
    """

    def __init__(
        self,
        layout: FrameLayout,
        time_base: Fraction,
        start_s: float,
        *,
        hflip: bool = False,
        drops_frames: bool = False,
        sampling: Sampling = S3D_SAMPLING,
        shape: tuple[int, int] | None = None,
    ):
        # A graph is a chain: the source takes decoded frames, each filter passes its output to the
        # next one, and the sink returns RGB frames. The frame rate filter drops and repeats frames
        # to reach the constant rate. It comes where the fewest frames are scaled.
        self._surplus = 0  # columns
        if sampling.size is None:
            image_filters = _whole_frame_filters(layout, hflip, shape)
        else:
            image_filters, self._surplus = _image_filters(layout, hflip, sampling.size)
        rate = f"fps={sampling.frame_rate}:start_time={start_s:.9f}"
        if sampling.size is None:
            rate += ":eof_action=pass"  # the last row may cover only a part of its time
        rate_filter = ("fps", rate)
        filters = [*image_filters, rate_filter, ("buffersink", "")]
        if drops_frames:
            filters = [rate_filter, *image_filters, ("buffersink", "")]
        # The source must know the layout of the frames.
        source = {
            "video_size": f"{layout.width}x{layout.height}",
            "pix_fmt": layout.pix_fmt,
            "time_base": str(time_base),
            "pixel_aspect": "1/1",
            "range": str(layout.colour_range),
        }
        if layout.colour_space != _UNSPECIFIED:
            source["colorspace"] = str(layout.colour_space)
        graph = av.filter.Graph()
        graph.threads = 1
        nodes = [graph.add("buffer", **source)]
        for name, arguments in filters:
            nodes.append(graph.add(name, arguments))
        graph.link_nodes(*nodes).configure()
        self._graph = graph
        self.shape = shape
        """Height and width of the output frames; None before the first one."""

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
            # A row has surplus columns on both sides and may have padding at its end.
            plane = output.planes[0]
            values = np.frombuffer(memoryview(plane), dtype=np.uint8)
            rows = values.reshape(plane.height, plane.line_size)
            width = plane.width - 2 * self._surplus
            self.shape = plane.height, width
            begin = 3 * self._surplus
            end = begin + 3 * width
            yield rows[:, begin:end].reshape(plane.height, width, 3)
