"""What a caller may give as a video, told apart: S3D features, decoded frames, an `.npy` of either,
or a video file.

Legend: N videos, L seconds, P frames per second (30), H, W pixels, I width of the features.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.inference.texts import batches
from mmpt.utils.io import load_npy
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

Video = str | Path | np.ndarray | torch.Tensor
"""A path, features [L, I], or frames [L, P, H, W, 3] (uint8, or float in 0..1)."""

CLIPS_AT_ONCE = 8  # one-second clips through S3D: about 2 GB in float32 at 224 x 224
FEATURE_AXES, FRAME_AXES = 2, 5
FLOATS = ("float16", "bfloat16", "float32", "float64")


def split_videos(videos: Video | Sequence[Video]) -> list[Video]:
    """Returns one entry per video of a single video, a list of them, or an array with a leading
    axis N.

    Raises:
        DataError: there is none.
    """
    if isinstance(videos, str | Path):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        several = videos.ndim in (FEATURE_AXES + 1, FRAME_AXES + 1) and len(videos) > 0
        return list(videos) if several else [videos]
    if not videos:
        raise DataError("there must be at least one video, but the list is empty.")
    return list(videos)


def read_video(video: Video, name: str) -> torch.Tensor | Iterator[torch.Tensor]:
    """Returns features [L, I] as one tensor, or an iterator over blocks of frames [l, P, H, W, 3].

    Raises:
        DataError: a file that cannot be read, or an array of another layout or type.
    """
    if isinstance(video, str | Path):
        path, name = Path(video), str(video)
        if path.suffix != ".npy":
            return _decoded(path)
        video = load_npy(path, "Extract or copy it again.")
    found, is_known = type(video).__name__, False
    if isinstance(video, np.ndarray | torch.Tensor):
        dtype = str(video.dtype).removeprefix("torch.")
        kinds = {FEATURE_AXES: FLOATS, FRAME_AXES: (*FLOATS, "uint8")}
        found = f"{dtype} {list(video.shape)}"
        is_known = dtype in kinds.get(video.ndim, ()) and len(video) > 0
    if not is_known:
        raise DataError(
            f"{name}: must be features, floats [seconds, 512], or frames [seconds, 30, H, W, 3], "
            f"uint8 or floats in 0..1, of at least one second, but is {found}."
        )
    if isinstance(video, np.ndarray):
        # Copies what is read-only, as a mapped file is.
        video = torch.from_numpy(np.require(video, requirements=["W"]))
    if video.ndim == FRAME_AXES:
        return iter(video.split(CLIPS_AT_ONCE))
    if not bool(video.isfinite().all()):
        raise DataError(
            f"{name}: features must be finite, but hold NaN or infinity; extract this video again."
        )
    return video


def unit_range(frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns frames as floats in 0..1; uint8 is divided by 255.

    Raises:
        DataError: floats outside 0..1, or another type.
    """
    if frames.dtype == torch.uint8:
        return frames.to(dtype) / 255
    low, high = frames.aminmax()
    if not frames.is_floating_point() or not (low >= 0 and high <= 1):
        raise DataError(
            f"frames must be uint8, or floats in 0..1, but are {frames.dtype} from {low:g} to "
            f"{high:g}; divide by 255, or pass uint8."
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
