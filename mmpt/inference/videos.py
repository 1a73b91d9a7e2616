"""Reads the videos that callers pass to `MMPTModel`.

A video is S3D features, decoded frames, an `.npy` file of either, or a video file.

Legend: N videos, L seconds, l seconds of a block, P frames per second (30), H, W pixels, I width
of the features.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.inference import inputs
from mmpt.inference.inputs import Array, Video, Videos
from mmpt.inference.texts import batches
from mmpt.utils.io import load_npy
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

CLIPS_AT_ONCE = 8
"""Number of one-second clips in a pass of S3D. At 224 x 224 they take about 2 GB in float32."""
FEATURE_AXES, FRAME_AXES = 2, 5
NUM_COLOURS = 3
DTYPES_BY_AXES = {FEATURE_AXES: inputs.FLOATS, FRAME_AXES: inputs.FRAMES}


def split_videos(videos: Videos, name: str = "videos") -> dict[str, Video]:
    """Returns single videos, each by the name that it has in messages, such as `videos[3]`.

    Args:
        videos: one video, several of them, or an array with a leading axis N.
        name: name of the argument.
    Raises:
        DataError: there is no video.
    """
    if isinstance(videos, str | Path):
        return {name: videos}
    if isinstance(videos, Array) and videos.ndim != 1:
        has_leading_axis = videos.ndim in (FEATURE_AXES + 1, FRAME_AXES + 1)
        if not has_leading_axis or not len(videos):
            return {name: videos}
    else:
        videos = inputs.to_list(videos, name, "at least one video (paths, features or frames)")
    return {f"{name}[{index}]": video for index, video in enumerate(videos)}


def read_video(video: Video, name: str) -> torch.Tensor | Iterator[torch.Tensor]:
    """Returns features [L, I] as one tensor, or an iterator over blocks of frames [l, P, H, W, 3].

    Args:
        name: name of an array, for messages.
    Raises:
        DataError: the file cannot be read, or the array has another layout or dtype.
    """
    if isinstance(video, str | Path):
        path = Path(video)
        if path.suffix != ".npy":
            return _decode(path)
        video = load_npy(path, "Extract or copy it again.")
    is_known = inputs.is_array(video, DTYPES_BY_AXES) and len(video) > 0
    if not is_known or (video.ndim == FRAME_AXES and video.shape[-1] != NUM_COLOURS):
        raise DataError(
            f"{name}: must be features, floats [seconds, 512], or frames [seconds, 30, H, W, 3], "
            f"uint8 or floats in 0..1, of at least one second, but is {inputs.describe(video)}."
        )
    if video.ndim == FEATURE_AXES:
        return inputs.contiguous(video)
    starts = range(0, len(video), CLIPS_AT_ONCE)
    return (inputs.contiguous(video[start : start + CLIPS_AT_ONCE]) for start in starts)


def to_unit_range(frames: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Returns frames as floats in 0..1. uint8 is divided by 255.

    Args:
        dtype: dtype of the result.
        name: name of the video, for messages.
    Raises:
        DataError: the frames are floats outside 0..1, or have another dtype.
    """
    if frames.dtype == torch.uint8:
        return frames.to(dtype) / 255
    low, high = frames.aminmax()
    if not frames.is_floating_point() or not (low >= 0 and high <= 1):
        raise DataError(
            f"{name}: frames must be uint8, or floats in 0..1, but are {frames.dtype} from {low:g} "
            f"to {high:g}; divide by 255, or pass uint8."
        )
    return frames.to(dtype)


def _decode(path: Path) -> Iterator[torch.Tensor]:
    """Decodes a video file in blocks of some seconds, at 30 frames of 224 x 224 per second."""
    # Deferred: it needs PyAV, which is not installed where only features are used.
    from mmpt.media.video_reader import VideoError, VideoFile

    video = VideoFile(path)
    try:
        for clips in batches(video.clips(), CLIPS_AT_ONCE):
            yield torch.from_numpy(np.stack(clips))
    except VideoError as err:
        raise DataError(f"{path}: {err}.") from err
    for note in video.notes:
        logger.warning("%s: %s", path, note)
