"""The features of the videos that callers pass to `MMPTModel`: read, or computed from frames.

Legend: R feature rows, T frames of a row, H, W pixels, I width of the features.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mmpt.errors import DataError
from mmpt.inference import inputs
from mmpt.inference.frame_encoder import FrameEncoder
from mmpt.inference.inputs import Video
from mmpt.inference.origin import find_mismatch
from mmpt.inference.videos import FRAME_AXES, read_array
from mmpt.shards.feature_info import format_rate, read_feature_info
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
NORM_TOLERANCE = 0.1
"""Largest difference from 1 of the median norm of L2-normalised rows. Rounding causes far less."""


class VideoFeatures(nn.Module):
    """Returns the features of videos as a model takes them.

    Args:
        frames: computes features of frames, in the width and rate that the model takes.
    """

    def __init__(self, frames: FrameEncoder):
        super().__init__()
        self.frames = frames
        self._warned_folders: set[str] = set()

    def check_folder(self, folder: str | Path, name: str) -> None:
        """Compares `features.json` of a folder, if there is one, with the model.

        Logs a warning if the model was trained with features from another encoder.

        Args:
            name: the features, for messages.
        Raises:
            DataError: the features have another width or rate.
        """
        info = read_feature_info(folder)
        if info is None:
            return
        width, fps, command = self.frames.width, self.frames.fps, self.frames.command
        if (info.width, info.fps) != (width, fps):
            raise DataError(
                f"{name}: must be {width}-d features at {format_rate(fps)}, as the model takes "
                f"them, but are {info} (features.json)."
            )
        mismatch = find_mismatch(self.frames.origin, info)
        if mismatch and str(folder) not in self._warned_folders:
            self._warned_folders.add(str(folder))
            remedy = f"; `{command}` makes the right ones" if command else ""
            logger.warning(
                "%s: %s. Scores are meaningless if they differ%s.",
                folder,
                mismatch,
                remedy,
            )

    def read(
        self, video: Video, name: str, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Returns the features [R, I] of one video.

        Args:
            video: a path, features or frames, as in `MMPTModel.encode_video`.
            name: name of an array, for messages.
            device, dtype: of the model.
        Raises:
            DataError, CheckpointError: as for `MMPTModel.encode_video`.
        """
        source = "an array"
        if isinstance(video, str | Path):
            video = Path(video)
            name, source = str(video), str(video.parent)
            if video.suffix != ".npy":
                return self.frames.encode_file(video, device, dtype)
            self.check_folder(video.parent, name)
        array = read_array(video, name)
        if array.ndim == FRAME_AXES:
            return self.frames.encode_clips(array, name, device, dtype)
        width, found = self.frames.width, array.shape[1]
        if found != width:
            raise DataError(
                f"{name}: features must be {width}-d, as the model takes them, but are {found}-d."
            )
        features_RI = inputs.contiguous(array).detach().to(device, dtype)
        self._check_norms(features_RI, name, source)
        remedy = "extract this video again, or load the model in a wider type (`dtype`)"
        return inputs.require_finite(features_RI, f"{name}: features", remedy)

    def _check_norms(self, features_RI: Tensor, name: str, source: str) -> None:
        """Logs a warning if the model was trained on L2-normalised rows, but these are not.

        Args:
            name: the features, for the message.
            source: their folder. It gets at most one warning of any kind.
        """
        if not self.frames.origin.normalised or source in self._warned_folders:
            return
        norms_R = features_RI.float().norm(dim=1)
        # A row of zeros is a second without features.
        norms_R = norms_R[norms_R > 0]
        if len(norms_R) == 0:
            return
        norm = float(norms_R.median())
        if abs(norm - 1) > NORM_TOLERANCE:
            self._warned_folders.add(source)
            logger.warning(
                "%s: the model was trained on L2-normalised features, but the median norm of these "
                "rows is %.3g. Scores are meaningless; divide each row by its norm.",
                name,
                norm,
            )
