"""Turns frames into the features that a model takes, with the encoder that it was trained on.

Legend: R feature rows, T frames of a row, H, W pixels, I width of the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError, UserError
from mmpt.inference import inputs
from mmpt.inference.embedding import batches
from mmpt.inference.encoder_choice import (
    Choice,
    choose_encoder,
    find_difference,
    open_choice,
)
from mmpt.inference.inputs import Array
from mmpt.inference.origin import S3D_NAME, Origin, extract_command
from mmpt.inference.videos import CLIPS_AT_ONCE, decode, run_s3d, to_bytes
from mmpt.media.s3d import S3D, S3D_WEIGHTS, load_s3d
from mmpt.shards.feature_info import format_rate
from mmpt.shards.feature_rows import finish_features
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    # They need PyAV, which is not installed where only features are used.
    from mmpt.media.clip_encoder import ClipEncoder
    from mmpt.media.encoders import Encoder

logger = get_logger(__name__)


class FrameEncoder(nn.Module):
    """Turns frames into the features that a model takes.

    The encoder is loaded when the first frames are encoded.

    Args:
        origin: where the model is from. It names the encoder of the features of its training run.
        width: I, as the model takes it.
        fps: feature rows per second of video, as the model takes them.
        encoder, s3d, normalise: see `MMPTModel`.
    """

    def __init__(
        self,
        origin: Origin,
        width: int,
        fps: float,
        *,
        encoder: str | Encoder | None = None,
        s3d: S3D | str | Path = S3D_WEIGHTS,
        normalise: bool | None = None,
    ):
        super().__init__()
        self.origin = origin
        self.width = width
        self.fps = fps
        self.command = extract_command(
            origin.encoder, fps=fps, normalised=origin.normalised
        )
        """The command that makes these features. None: there is no such command."""
        self.s3d: S3D | Path = s3d if isinstance(s3d, S3D) else Path(s3d)
        # The encoder is not an attribute, because torch would register it as a part of the model:
        # its weights stay in float32.
        self._choose = partial(choose_encoder, origin, encoder)
        self._clip_encoder: ClipEncoder | None = None  # not loaded yet, or S3D
        if normalise is None:
            normalise = origin.normalised is not False
        self._normalise = normalise

    @property
    def uses_s3d(self) -> bool:
        """Whether frames are encoded with S3D. False also if the encoder must not be loaded."""
        try:
            return self._choose().encoder == S3D_NAME
        except DataError:
            return False

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the encoder, if it is not loaded yet.

        Args:
            device, dtype: of the model. Encoders other than S3D always have float32 weights, as in
                `mmpt extract`.
        Raises:
            DataError: the model takes features of an encoder that cannot be loaded here.
            CheckpointError: the weights of S3D are missing. The message says how to download them.
        """
        if self._choice.encoder != S3D_NAME:
            self._open(device)
        elif not isinstance(self.s3d, S3D):
            self.s3d = load_s3d(self.s3d).to(device, dtype)

    def encode_file(
        self, path: Path, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Returns the features [R, I] of a video file.

        Raises:
            DataError: as for `load`, or the file cannot be read.
            CheckpointError: as for `load`.
        """
        self.load(device, dtype)
        encoder = self._clip_encoder
        clips = decode(path, encoder.sampling if encoder else None)
        return self._encode(clips, str(path), device, dtype)

    def encode_clips(
        self, clips_RTHWC: Array, name: str, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Returns the features [R, I] of clips, one for each row.

        Args:
            clips_RTHWC: uint8, or float in 0..1, [R, T, H, W, 3] in RGB.
            name: name of the clips, for messages.
        Raises:
            DataError: as for `load`, or the encoder takes another number of frames.
            CheckpointError: as for `load`.
        """
        self.load(device, dtype)
        if len(clips_RTHWC) == 0:
            return torch.empty(0, self.width, device=device, dtype=dtype)
        clips = (inputs.contiguous(clip) for clip in clips_RTHWC)
        return self._encode(clips, name, device, dtype)

    def _encode(
        self,
        clips: Iterable[Tensor],
        name: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Tensor:
        """Returns the features of clips with the loaded encoder."""
        if self._clip_encoder is not None:
            rows_RI = self._run_encoder(self._clip_encoder, clips, name)
            return rows_RI.to(device, dtype)
        assert isinstance(self.s3d, S3D)
        blocks = []
        for block in batches(clips, CLIPS_AT_ONCE):
            blocks.append(run_s3d(self.s3d, torch.stack(block), name))
        features_RI = torch.cat(blocks)
        return normalize(features_RI, dim=-1) if self._normalise else features_RI

    def _run_encoder(
        self, encoder: ClipEncoder, clips: Iterable[Tensor], name: str
    ) -> Tensor:
        """Returns features as `mmpt extract` writes them by default, float16 on the CPU."""

        def prepared() -> Iterator[Tensor]:
            num_frames = encoder.sampling.num_frames
            for clip in clips:
                if len(clip) != num_frames:
                    raise DataError(
                        f"{name}: frames must be [rows, {num_frames}, height, width, 3] for "
                        f"{encoder.name}, with {self.fps:g} rows per second, but a row has "
                        f"{len(clip)} frames. Pass the path of the video file instead."
                    )
                yield encoder.prepare(to_bytes(clip, name).cpu().numpy())

        features_RI = finish_features(
            encoder.run(prepared()),
            l2_normalize=self._normalise,
            dtype=np.dtype(np.float16),
        )
        return inputs.require_finite(
            torch.from_numpy(features_RI),
            f"{name}: features of {encoder.name}",
            "leave this video out, or extract its features with `--half_precision 0`",
        )

    @cached_property
    def _choice(self) -> Choice:
        """The encoder.

        Raises:
            DataError: it must not be loaded, or it is S3D, whose features have another width or
                rate than the model takes.
        """
        try:
            choice = self._choose()
        except DataError as err:
            raise self._refusal(str(err)) from err
        if choice.encoder == S3D_NAME:
            self._check_kind("S3D", FEATURE_DIM, 1)
            revision = None
            is_recorded = self.origin.encoder_revision is not None
            if is_recorded and isinstance(self.s3d, Path) and self.s3d.is_file():
                revision = f"sha256 {file_hash(self.s3d)}"
            self._warn_if_different(S3D_NAME, revision)
        if choice.note:
            logger.log(choice.level, choice.note)
        return choice

    def _open(self, device: torch.device) -> None:
        """Opens an encoder other than S3D on a device, unless it is open there."""
        from mmpt.media.clip_encoder import ClipEncoder

        found = self._clip_encoder
        if found is None:
            try:
                name, revision, encoder = open_choice(self._choice, self.fps)
            except UserError as err:
                reason = f"the encoder cannot be loaded: {err}"
                raise self._refusal(reason) from err
            self._warn_if_different(name, revision)
        elif found.device != device:
            name, encoder = found.name, found.encoder
        else:
            return
        opened = ClipEncoder(encoder, device, name=name, halves_batch_on_oom=True)
        self._check_kind(name, opened.width, opened.sampling.fps)
        self._clip_encoder = opened

    def _warn_if_different(self, name: str, revision: str | None) -> None:
        """Logs a warning if an encoder may differ from the encoder of the training run."""
        difference = find_difference(self.origin, name, revision)
        if difference is not None:
            logger.warning("%s", difference)

    def _check_kind(self, name: str, width: int, fps: float) -> None:
        """Raises DataError if an encoder makes other features than the model takes."""
        if (width, fps) != (self.width, self.fps):
            reason = f"{name} produces {width}-d features at {format_rate(fps)}"
            raise self._refusal(reason)

    def _refusal(self, reason: str) -> DataError:
        """Returns the error for a model whose frames cannot be encoded here."""
        encoder = self.origin.encoder
        maker = f" of {encoder}" if encoder else ""
        remedy = "Extract features with the encoder of the training run"
        if self.command is not None:
            remedy = f"Extract them with `{self.command}`"
        return DataError(
            f"frames cannot be embedded: the model takes {self.width}-d features{maker} at "
            f"{format_rate(self.fps)}, but {reason.rstrip('.')}. {remedy}, and pass them with "
            "`--features FEATURES`."
        )
