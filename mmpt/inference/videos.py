"""What a caller may give as a video, told apart: S3D features, decoded frames, an `.npy` of either,
or a video file.

Legend: N videos, L seconds, P frames per second (30), H, W pixels, I width of the features.
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

CLIPS_AT_ONCE = 8  # one-second clips through S3D: about 2 GB in float32 at 224 x 224
FEATURE_AXES, FRAME_AXES = 2, 5
NUM_COLOURS = 3
KINDS = {FEATURE_AXES: inputs.FLOATS, FRAME_AXES: inputs.FRAMES}


def split_videos(videos: Videos, name: str = "videos") -> dict[str, Video]:
    """Returns each video by its name in messages. `videos` is one video, several of them, or an
    array with a leading axis N.

    Args:
        name: the argument.
    Raises:
        DataError: there is no video.
    """
    if isinstance(videos, str | Path):
        return {name: videos}
    if isinstance(videos, Array) and videos.ndim != 1:
        if videos.ndim not in (FEATURE_AXES + 1, FRAME_AXES + 1) or not len(videos):
            return {name: videos}
    else:
        videos = inputs.to_list(videos, name, "at least one video (paths, features or frames)")
    return {f"{name}[{place}]": video for place, video in enumerate(videos)}


def read_video(video: Video, name: str) -> torch.Tensor | Iterator[torch.Tensor]:
    """Returns features [L, I] as one tensor, or an iterator over blocks of frames [l, P, H, W, 3].

    Raises:
        DataError: a file that cannot be read, or an array of another layout or type.
    """
    if isinstance(video, str | Path):
        path = Path(video)
        if path.suffix != ".npy":
            return _decoded(path)
        video = load_npy(path, "Extract or copy it again.")
    is_known = inputs.is_array(video, KINDS) and len(video) > 0
    if not is_known or (video.ndim == FRAME_AXES and video.shape[-1] != NUM_COLOURS):
        raise DataError(
            f"{name}: must be features, floats [seconds, 512], or frames [seconds, 30, H, W, 3], "
            f"uint8 or floats in 0..1, of at least one second, but is {inputs.describe(video)}."
        )
    if video.ndim == FEATURE_AXES:
        return inputs.contiguous(video)
    starts = range(0, len(video), CLIPS_AT_ONCE)
    return (inputs.contiguous(video[start : start + CLIPS_AT_ONCE]) for start in starts)


def unit_range(frames: torch.Tensor, dtype: torch.dtype, name: str) -> torch.Tensor:
    """Returns frames as floats in 0..1; uint8 is divided by 255.

    Args:
        name: of the video, for messages.
    Raises:
        DataError: floats outside 0..1, or another type.
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


def _decoded(path: Path) -> Iterator[torch.Tensor]:
    """Decodes a video file, some seconds at a time, at 30 frames of 224 x 224 per second."""
    # deferred: needs PyAV, which features do not
    from mmpt.media.video_reader import VideoError, VideoFile

    video = VideoFile(path)
    try:
        for clips in batches(video.clips(), CLIPS_AT_ONCE):
            yield torch.from_numpy(np.stack(clips))
    except VideoError as err:
        raise DataError(f"{path}: {err}.") from err
    for note in video.notes:
        logger.warning("%s: %s", path, note)
