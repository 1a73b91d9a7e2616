"""The features of the videos that callers pass to `MMPTModel`: read, or computed from frames.

Legend: R feature rows, T frames of a row, H, W pixels, I width of the features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmpt.errors import DataError
from mmpt.inference import inputs
from mmpt.inference.frame_encoder import FrameEncoder
from mmpt.inference.inputs import Video
from mmpt.inference.origin import Origin, extract_command, find_mismatch
from mmpt.inference.videos import FRAME_AXES, read_array
from mmpt.media.s3d import S3D
from mmpt.shards.feature_info import read_feature_info
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    from mmpt.media.encoders import Encoder  # needs PyAV

logger = get_logger(__name__)


class VideoFeatures(nn.Module):
    """Returns the features of videos as a model takes them.

    Args:
        origin: where the model is from. It names the encoder of the features of its training.
        width: I.
        fps: feature rows per second of video.
        encoder, s3d, normalise: see `MMPTModel`.
    """

    def __init__(
        self,
        origin: Origin,
        width: int,
        fps: float,
        *,
        encoder: str | Encoder | None,
        s3d: S3D | str | Path,
        normalise: bool,
    ):
        super().__init__()
        self.origin = origin
        self.width = width
        self.fps = fps
        self.command = (
            extract_command(origin.encoder, fps=fps, normalised=origin.normalised)
            or "mmpt extract --vdir VIDEOS --fdir FEATURES --encoder NAME"
        )
        """The command that makes these features."""
        self.frames = FrameEncoder(
            origin,
            width,
            fps,
            encoder=encoder,
            s3d=s3d,
            normalise=normalise,
            command=self.command,
        )
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
        if (info.width, info.fps) != (self.width, self.fps):
            raise DataError(
                f"{name}: features must be {self.width} wide, {self.fps:g} a second, as the model "
                f"takes them, but are {info} (features.json)."
            )
        mismatch = find_mismatch(self.origin, info)
        if mismatch and str(folder) not in self._warned_folders:
            self._warned_folders.add(str(folder))
            logger.warning(
                "%s: %s. Scores are meaningless if they differ; `%s` makes the right ones.",
                folder,
                mismatch,
                self.command,
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
        if isinstance(video, str | Path):
            video = Path(video)
            name = str(video)
            if video.suffix != ".npy":
                return self.frames.encode_file(video, device, dtype)
            self.check_folder(video.parent, name)
        array = read_array(video, name)
        if array.ndim == FRAME_AXES:
            return self.frames.encode_clips(array, name, device, dtype)
        found = array.shape[1]
        if found != self.width:
            raise DataError(
                f"{name}: features must be {self.width} wide, as the model is, but are {found}."
            )
        features_RI = inputs.contiguous(array).detach().to(device, dtype)
        remedy = "extract this video again, or load the model in a wider type (`dtype`)"
        return inputs.require_finite(features_RI, f"{name}: features", remedy)
