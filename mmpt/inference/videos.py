"""What a caller may give as a video, told apart: S3D features, decoded frames, an `.npy` of either,
or a video file.

Legend: N videos, L seconds, P frames per second (30), H, W pixels, I width of the features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.inference.windows import batches
from mmpt.utils.io import load_npy
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

Video = str | Path | np.ndarray | torch.Tensor
"""A path, features [L, I], or frames [L, P, H, W, 3] (uint8, or float in 0..1)."""

CLIPS_AT_ONCE = 8  # one-second clips through S3D: about 2 GB in float32 at 224 x 224
ONE_VIDEO, SEVERAL = (2, 5), (3, 6)  # axes of features and of frames


def split_videos(videos: Video | Sequence[Video]) -> list[Video]:
    """Returns one entry per video of a single video, a list of them, or an array with a leading
    axis N.

    Raises:
        DataError: there is none.
    """
    if isinstance(videos, str | Path):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        return list(videos) if videos.ndim in SEVERAL and len(videos) else [videos]
    if not videos:
        raise DataError("there must be at least one video, but the list is empty.")
    return list(videos)


def read_video(video: Video, name: str) -> torch.Tensor | Iterator[torch.Tensor]:
    """Returns features [L, I] as one tensor, or an iterator over blocks of frames [l, P, H, W, 3].

    Raises:
        DataError: a file that cannot be read, or an array of another layout, type or range.
    """
    if isinstance(video, str | Path):
        path, name = Path(video), str(video)
        if path.suffix != ".npy":
            return _decoded(path)
        video = load_npy(path, "Extract or copy it again.")
    array = _to_tensor(video, name) if isinstance(video, np.ndarray) else video
    if not isinstance(array, torch.Tensor) or array.ndim not in ONE_VIDEO:
        found = list(array.shape) if isinstance(array, torch.Tensor) else type(array).__name__
        raise DataError(
            f"{name}: must be features [seconds, 512] or frames [seconds, 30, H, W, 3], but is "
            f"{found}."
        )
    if not len(array):
        raise DataError(f"{name}: must last at least one second, but is empty.")
    if array.ndim == 5:
        return iter(array.split(CLIPS_AT_ONCE))
    _check_features(array, name)
    return array


def _to_tensor(array: np.ndarray, name: str) -> torch.Tensor:
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        raise DataError(f"{name}: must be floats, or uint8 frames, but is {array.dtype}.")
    # Copies what is read-only, as a mapped file is.
    return torch.from_numpy(np.require(array, requirements=["W"]))


def _check_features(features_LI: torch.Tensor, name: str) -> None:
    if not features_LI.is_floating_point():
        raise DataError(
            f"{name}: features must be floats, but are "
            f"{str(features_LI.dtype).removeprefix('torch.')}."
        )
    if not bool(features_LI.isfinite().all()):
        raise DataError(
            f"{name}: features must be finite, but hold NaN or infinity; extract this video again."
        )


def unit_range(frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns frames as floats in 0..1; uint8 is divided by 255.

    Raises:
        DataError: floats outside 0..1, or another type.
    """
    if frames.dtype == torch.uint8:
        return frames.to(dtype) / 255
    if not frames.is_floating_point():
        raise DataError(
            "frames must be uint8 or floats in 0..1, but are "
            f"{str(frames.dtype).removeprefix('torch.')}."
        )
    low, high = (float(bound) for bound in frames.aminmax()) if frames.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"float frames must lie in 0..1, but span {low:g} to {high:g}; divide by 255, or pass "
            "uint8."
        )
    return frames.to(dtype)


def _decoded(path: Path) -> Iterator[torch.Tensor]:
    """Decodes a video file, some seconds at a time, at 30 frames of 224 x 224 per second."""
    try:
        from mmpt.media.video_reader import VideoError, VideoFile
    except ImportError as err:
        raise DataError(
            f"{path}: reading videos needs PyAV ({err}); install it with `pip install av`."
        ) from err
    video = VideoFile(path)
    try:
        for clips in batches(video.clips(), CLIPS_AT_ONCE):
            yield torch.from_numpy(np.stack(clips))
    except VideoError as err:
        raise DataError(f"{path}: {err}.") from err
    for note in video.notes:
        logger.warning("%s: %s", path, note)
