"""Reads the videos that callers pass to `MMPTModel`, and runs S3D on their frames.

A video is features, decoded frames, an `.npy` file of either, or a video file.

Legend: N videos or clips, R feature rows, T frames of a row (P = 30 with S3D), H, W pixels, I width
of the features.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmpt.errors import DataError
from mmpt.inference import inputs
from mmpt.inference.inputs import Array, Video, Videos
from mmpt.media.s3d import S3D
from mmpt.utils.io import load_npy
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    from mmpt.media.frame_graph import Sampling

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
        if not has_leading_axis or len(videos) == 0:
            return {name: videos}
    else:
        videos = inputs.to_list(
            videos, name, "at least one video (paths, features or frames)"
        )
    by_name = {}
    for index, video in enumerate(videos):
        by_name[f"{name}[{index}]"] = video
    return by_name


def read_array(video: Path | Array, name: str) -> Array:
    """Returns features [R, I] or frames [R, T, H, W, 3].

    Args:
        video: an array, or the path of an `.npy` file.
        name: name of the array, for messages.
    Raises:
        DataError: the file cannot be read, or the array has another layout or dtype.
    """
    if isinstance(video, Path):
        video = load_npy(video, "Extract or copy it again.")
    is_valid = inputs.is_array(video, DTYPES_BY_AXES) and len(video) > 0
    if is_valid and (video.ndim == FEATURE_AXES or video.shape[-1] == NUM_COLOURS):
        return video
    raise DataError(
        f"{name}: must be features, floats [rows, width], or frames [rows, frames of a row, H, W, "
        "3] (S3D: [seconds, 30, H, W, 3]), uint8 or floats in 0..1, of at least one second, but is "
        f"{inputs.describe(video)}."
    )


def run_s3d(network: S3D, clips_NPHWC: Tensor, name: str) -> Tensor:
    """Returns the features [N, 512] of clips of one second each.

    Args:
        network: S3D. The clips are converted to its dtype, and computed on its device.
        clips_NPHWC: uint8, or float in 0..1.
        name: name of the video, for messages.
    Raises:
        DataError: the clips have another dtype or range.
    """
    weights = next(network.parameters())
    features = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for block in clips_NPHWC.split(CLIPS_AT_ONCE):
            channels_first = block.to(weights.device).movedim(-1, 1)
            clips = to_unit_range(channels_first, weights.dtype, name)
            features.append(network(clips)["video_embedding"])
    return torch.cat(features)


def to_unit_range(frames: Tensor, dtype: torch.dtype, name: str) -> Tensor:
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
    is_in_range = low >= 0 and high <= 1
    if not frames.is_floating_point() or not is_in_range:
        raise DataError(
            f"{name}: frames must be uint8, or floats in 0..1, but are {frames.dtype} from {low:g} "
            f"to {high:g}; divide by 255, or pass uint8."
        )
    return frames.to(dtype)


def to_bytes(frames: Tensor, name: str) -> Tensor:
    """Returns frames as uint8. Floats in 0..1 are multiplied by 255.

    Raises:
        DataError: as for `to_unit_range`.
    """
    if frames.dtype == torch.uint8:
        return frames
    scaled = 255 * to_unit_range(frames, torch.float32, name)
    return scaled.round().to(torch.uint8)


def decode(path: Path, sampling: "Sampling | None" = None) -> Iterator[Tensor]:
    """Yields the frames of a video file, uint8 [T, H, W, 3] for each row.

    Args:
        sampling: which frames make a row. None: S3D's, 30 frames of 224 x 224 pixels per second.
    Raises:
        DataError: the file cannot be read.
    """
    # Deferred: it needs PyAV, which is not installed where only features are used.
    from mmpt.media.frame_graph import S3D_SAMPLING
    from mmpt.media.video_reader import VideoError, VideoFile

    video = VideoFile(path, samplings=[sampling or S3D_SAMPLING])
    try:
        for clip in video.clips():
            yield torch.from_numpy(clip)
    except VideoError as err:
        raise DataError(f"{path}: {err}.") from err
    for note in video.notes:
        logger.warning("%s: %s", path, note)
