"""Turns frames into the features that a model takes: with S3D, or with the encoder of its training.

Legend: R feature rows, T frames of a row, H, W pixels, I width of the features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
from mmpt.inference.inputs import Array
from mmpt.inference.origin import EXTRACTED, OF_FOLDER, Origin
from mmpt.inference.videos import CLIPS_AT_ONCE, decode, run_s3d, to_bytes
from mmpt.media.s3d import S3D, load_s3d
from mmpt.utils.log import get_logger

if TYPE_CHECKING:
    # They need PyAV, which is not installed where only features are used.
    from mmpt.media.clip_encoder import ClipEncoder
    from mmpt.media.encoders import Encoder, NamedEncoder

logger = get_logger(__name__)

LOADED = ("hf", "timm")
"""Kinds of encoders that are loaded because a model names them. A class runs code of its module, so
it is only loaded if the user passes it."""


class FrameEncoder(nn.Module):
    """Turns frames into the features that a model takes.

    The network is loaded when there are frames for the first time.

    Args:
        origin: where the model is from. It names the encoder of the features of its training.
        width: I, as the model takes it.
        fps: feature rows per second of video, as the model takes them.
        encoder, s3d, normalise: see `MMPTModel`.
        command: makes these features, for messages.
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
        command: str,
    ):
        super().__init__()
        self.origin = origin
        self.width = width
        self.fps = fps
        self.s3d: S3D | Path = s3d if isinstance(s3d, S3D) else Path(s3d)
        # In a tuple, because torch must not register it as a part of the model: its weights stay in
        # float32.
        self._chosen = (encoder,)
        self._normalise = normalise
        self._command = command
        self._named: NamedEncoder | None = None  # not loaded yet, or S3D
        self._clip_encoder: ClipEncoder | None = None

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Loads the network, if it is not loaded yet.

        Args:
            device, dtype: of the model. Encoders other than S3D always have float32 weights, as in
                `mmpt extract`.
        Raises:
            DataError: the model takes features of an encoder that cannot be loaded here.
            CheckpointError: the weights of S3D are missing. The message says how to download them.
        """
        if not self._is_s3d():
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
        """Returns the features of clips with the loaded network."""
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
        # Deferred: it needs PyAV.
        from mmpt.media.clip_encoder import finish_features

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

        rows = []
        for batch in batches(prepared(), encoder.batch_size):
            rows.append(encoder.start(batch).result())
        features_RI = finish_features(
            np.concatenate(rows),
            l2_normalize=self.origin.normalised is not False,
            dtype=np.dtype(np.float16),
        )
        return inputs.require_finite(
            torch.from_numpy(features_RI),
            f"{name}: features of {encoder.name}",
            "leave this video out, or extract its features with `--half_precision 0`",
        )

    def _is_s3d(self) -> bool:
        """Returns whether frames are encoded with S3D.

        Raises:
            DataError: S3D makes features of another width or rate than the model takes.
        """
        (chosen,) = self._chosen
        encoder = "s3d" if chosen is None else chosen
        if chosen is None and self.origin.encoder is not None:
            encoder = self.origin.encoder
        if not isinstance(encoder, str) or not encoder.lower().startswith("s3d"):
            return False
        if encoder != "s3d" and EXTRACTED.fullmatch(encoder):
            return False  # a class of a module whose name starts like this
        if (self.width, self.fps) != (FEATURE_DIM, 1):
            raise self._refusal(f"S3D makes features {FEATURE_DIM} wide, 1 a second")
        return True

    def _open(self, device: torch.device) -> ClipEncoder:
        """Returns the encoder on a device."""
        from mmpt.media.clip_encoder import ClipEncoder

        if self._clip_encoder is None or self._clip_encoder.device != device:
            if self._named is None:
                self._named = self._open_named()
            name, _, encoder = self._named
            clip_encoder = ClipEncoder(encoder, device, name=name)
            found = (clip_encoder.width, clip_encoder.sampling.fps)
            if found != (self.width, self.fps):
                raise self._refusal(
                    f"{name} makes features {found[0]} wide, {found[1]:g} a second"
                )
            self._clip_encoder = clip_encoder
        return self._clip_encoder

    def _open_named(self) -> NamedEncoder:
        """Loads the encoder that the user has chosen, or else the one that the model names."""
        # Deferred: it needs PyAV.
        from mmpt.media.encoders import NamedEncoder

        (chosen,) = self._chosen
        if chosen is None:
            return self._open_recorded(self.origin.encoder or "")
        if isinstance(chosen, str):
            named = self._load(chosen)
        else:
            cls = type(chosen)
            name = f"{cls.__module__}.{cls.__qualname__}"
            named = NamedEncoder(name, None, chosen)
        trained = (self.origin.encoder, self.origin.encoder_revision)
        # The revisions identify the weights. Without them the names are compared.
        which = int(None not in (trained[1], named.revision))
        if trained[which] not in (None, named[which]):
            logger.warning(
                "frames are encoded with %s (%s), but the model was trained with features of %s "
                "(%s). Scores are meaningless if they differ.",
                *(named.name, named.revision or "unknown revision"),
                *(trained[0], trained[1] or "unknown revision"),
            )
        return named

    def _open_recorded(self, name: str) -> NamedEncoder:
        """Loads the encoder that the model names, in the revision of the training."""
        revision = self.origin.encoder_revision
        kind, _, source = name.partition(":")
        if kind not in LOADED:
            reason = f"{name!r} is not the name of a network that `mmpt extract` runs"
            if EXTRACTED.fullmatch(name):
                reason = (
                    f"{name} is a class, whose code is only run if you name it: "
                    f"`encoder={name!r}`, or `--encoder {name}`"
                )
            raise self._refusal(reason)
        is_folder = kind == "hf" and (revision or "").startswith(OF_FOLDER)
        if is_folder and not Path(source).is_dir():
            raise self._refusal(
                f"{source} is a folder that is not here; give the path of your copy with "
                "`encoder='hf:FOLDER'`, or `--encoder hf:FOLDER`"
            )
        logger.info("frames are encoded with %s", name)
        commit = revision if kind == "hf" and not is_folder else None
        named = self._load(name, commit)
        if revision not in (None, named.revision):
            raise self._refusal(
                f"the weights of {name} must be of revision {revision}, but are of "
                f"{named.revision or 'an unknown one'}"
            )
        return named

    def _load(self, name: str, commit: str | None = None) -> NamedEncoder:
        """Loads an encoder by its name.

        Args:
            commit: of a model on the Hugging Face Hub. None: the newest one.
        """
        # Deferred: it needs PyAV.
        from mmpt.media.encoders import open_encoder

        fps = self.fps if name.startswith(("hf:", "timm:")) else None
        try:
            return open_encoder(name, fps, commit)
        except UserError as err:
            raise self._refusal(f"the encoder cannot be loaded: {err}") from err

    def _refusal(self, reason: str) -> DataError:
        """Returns the error for a model whose frames cannot be encoded here."""
        encoder = self.origin.encoder
        maker = f" of {encoder}" if encoder else ""
        return DataError(
            f"frames cannot be embedded: the model takes features{maker} {self.width} wide, "
            f"{self.fps:g} a second, but {reason.rstrip('.')}. Extract them with "
            f"`{self._command}`, and embed these: `--features FEATURES`."
        )
