"""The networks that make features of frames, by the value of `mmpt extract --encoder`.

- `s3d`: the network of the release.
- `hf:<name>`: a vision or video model on the Hugging Face hub, or in a folder.
- `timm:<name>`: a vision model of the package timm.
- `module.Class`: a class of your own with the methods of `Encoder`.

Legend: N clips, T frames of a clip, H, W pixels, C colours (RGB), D width of the features.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError, first_line
from mmpt.media.custom_encoder import load_custom_encoder
from mmpt.media.frame_graph import S3D_SAMPLING, Sampling
from mmpt.media.hub_model import (
    WEIGHT_SUFFIXES,
    check_input,
    check_source,
    find_commit,
    load_error,
    load_processor,
)
from mmpt.utils.artefact import fingerprint, weights_fingerprint
from mmpt.utils.io import file_hash

NAMES = "s3d, hf:<model or folder>, timm:<model> or module.Class"


class Encoder(Protocol):
    """A network that makes feature rows. It may be a torch module, which is moved to the device."""

    def sampling(self) -> Sampling:
        """Returns which frames make a row. It decides the number of rows per second."""
        ...

    def prepare(self, frames_THWC: np.ndarray) -> Tensor:
        """Returns the network's input for one row, on the CPU. Several threads call it.

        Args:
            frames_THWC: uint8, RGB.
        """
        ...

    def encode(self, inputs: Tensor) -> Tensor:
        """Returns features, float [N, D].

        Args:
            inputs: N prepared inputs, joined along a new first axis, on the device.
        """
        ...


class NamedEncoder(NamedTuple):
    """An encoder and where it comes from."""

    name: str
    """Value of `--encoder`."""
    revision: str | None
    """Identifies the weights. None: unknown."""
    encoder: Encoder


class S3DEncoder(nn.Module):
    """S3D, which takes the 30 frames of a second.

    Args:
        network: maps float [N, 3, 30, 224, 224] in [0, 1] to a dict with `video_embedding` [N, D].
    """

    width = FEATURE_DIM

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def sampling(self) -> Sampling:
        """Returns 30 frames of 224 x 224 a second."""
        return S3D_SAMPLING

    def prepare(self, frames_THWC: np.ndarray) -> Tensor:
        """Returns the frames."""
        return torch.from_numpy(frames_THWC)

    def encode(self, inputs: Tensor) -> Tensor:
        """Returns features of uint8 frames [N, T, H, W, C]."""
        pixels_NCTHW = inputs.permute(0, 4, 1, 2, 3).contiguous()
        outputs = self.network(pixels_NCTHW.float() / 255)
        features: Tensor = outputs["video_embedding"]
        return features


class HuggingFaceEncoder(nn.Module):
    """A vision or video model of transformers. Its own processor resizes, crops and normalises.

    An image model takes the frame in the middle of each row's time. A video model takes as many
    frames as its config says, evenly spread over this time.

    Args:
        name: a model on the hub, of which the newest commit is used, or a folder.
        fps: rows per second.
        safetensors_only: do not read weights in other formats.
    Raises:
        CheckpointError: the model cannot be loaded, or needs code of its own, which is never run.
    """

    def __init__(self, name: str, fps: float, *, safetensors_only: bool = False):
        super().__init__()
        check_source(name)
        # deferred: takes seconds
        from transformers import AutoModel

        try:
            commit = None if Path(name).is_dir() else find_commit(name)
            # Without an explicit False, transformers asks whether to run the code of a model.
            options = {"revision": commit, "trust_remote_code": False}
            self.model = AutoModel.from_pretrained(
                name,
                dtype=torch.float32,
                use_safetensors=safetensors_only or None,
                **options,
            ).eval()
            self.processor = load_processor(name, options)
        except Exception as err:  # damaged files raise almost any error
            raise load_error(name, err) from err
        check_input(name, self.model)
        config = self.model.config
        vision = getattr(config, "vision_config", config)
        self.num_frames: int = 1
        for key in ("frames_per_clip", "num_frames"):
            self.num_frames = getattr(vision, key, None) or self.num_frames
        self.fps = fps
        self.revision = commit or _hash_of_folder(Path(name))

    def sampling(self) -> Sampling:
        """Returns the number of frames that the model takes."""
        frame_rate = _fraction(self.fps) * self.num_frames
        return Sampling(frame_rate, self.num_frames, size=None)

    def prepare(self, frames_THWC: np.ndarray) -> Tensor:
        """Returns the pixels that the processor makes, float [C, H, W] or [T, C, H, W]."""
        outputs = self.processor(list(frames_THWC), return_tensors="pt")
        (pixels, *_) = outputs.values()
        # The processor of a video model makes a batch of one video, [1, T, C, H, W]. The processor
        # of an image model makes a batch of frames, [T, C, H, W].
        is_batch_of_videos = pixels.ndim == 5
        if is_batch_of_videos or self.num_frames == 1:
            return pixels[0]
        return pixels

    def encode(self, inputs: Tensor) -> Tensor:
        """Returns the vectors that the model compares with texts, or else its pooled states."""
        model: Any = self.model
        if hasattr(model, "get_video_features"):
            return pooled(model.get_video_features(pixel_values=inputs))
        if hasattr(model, "get_image_features"):
            return pooled(model.get_image_features(pixel_values=inputs))
        return pooled(model(**{model.main_input_name: inputs}))


class TimmEncoder(nn.Module):
    """A vision model of timm, without its classifier. timm's own transform prepares frames.

    Args:
        name: as for `timm.create_model`.
        fps: rows per second.
    Raises:
        DataError: timm cannot be imported, or cannot load the model.
    """

    def __init__(self, name: str, fps: float):
        super().__init__()
        try:
            import timm
        except (ImportError, RuntimeError) as err:
            # torchvision raises RuntimeError if it was built for another torch.
            raise DataError(
                f"`--encoder timm:{name}` needs the package timm, which cannot be imported "
                f"({first_line(err)}). Install it with: pip install timm. It needs torchvision, "
                "in the version and the build (CPU or CUDA) that belong to your torch."
            ) from err
        try:
            self.model = timm.create_model(name, pretrained=True, num_classes=0).eval()
        except (RuntimeError, OSError, ValueError) as err:
            raise DataError(
                f"`--encoder timm:{name}` must be a model of timm with weights, but cannot be "
                f"loaded ({first_line(err)}). `timm.list_models(pretrained=True)` lists them."
            ) from err
        config = timm.data.resolve_model_data_config(self.model)
        self.transform = timm.data.create_transform(**config, is_training=False)
        self.fps = fps
        self.revision = (
            f"sha256 {weights_fingerprint(self.model, trainable_only=False)}"
        )

    def sampling(self) -> Sampling:
        """Returns one frame a row."""
        return Sampling(_fraction(self.fps), num_frames=1, size=None)

    def prepare(self, frames_THWC: np.ndarray) -> Tensor:
        """Returns pixels, float [C, H, W]."""
        from PIL import Image  # deferred: only this encoder needs it

        pixels: Tensor = self.transform(Image.fromarray(frames_THWC[0]))
        return pixels

    def encode(self, inputs: Tensor) -> Tensor:
        """Returns the pooled states."""
        return pooled(self.model(inputs))


def pooled(outputs: Any) -> Tensor:
    """Returns one vector per input from a model's output: pooled, or the mean over tokens."""
    if not isinstance(outputs, Tensor):
        vectors = getattr(outputs, "pooler_output", None)
        if vectors is None:
            vectors = outputs.last_hidden_state.mean(dim=1)
        outputs = vectors
    return outputs.flatten(1)


def folder_names(names: Sequence[str]) -> list[str]:
    """Returns a sub-folder for the features of each encoder: the last part of its name.

    Args:
        names: values of `--encoder`.
    Raises:
        DataError: a name has no last part, or several names have the same.
    """
    folders = [Path(name.rpartition(":")[2]).name for name in names]
    for name, folder in zip(names, folders, strict=True):
        if not folder or folder.startswith("."):
            raise DataError(
                f"`--encoder` must end in a name for the sub-folder of its features, but is "
                f"{name!r}. Give the whole path of the model."
            )
        if folders.count(folder) > 1:
            raise DataError(
                f"`--encoder` names must differ in their last part, but {folder!r} occurs "
                f"{folders.count(folder)} times. Extract these features in separate runs."
            )
    return folders


def open_encoder(name: str, fps: float | None = None) -> NamedEncoder:
    """Returns the encoder that `--encoder` names, unless it is S3D.

    Args:
        fps: rows per second. Default: 1. It cannot be given for a class of your own, whose method
            `sampling` decides the rate.
    Raises:
        UserError: there is no such encoder, or it cannot be loaded.
    """
    kind, colon, model = name.partition(":")
    if colon and kind == "hf":
        hub = HuggingFaceEncoder(model, fps or 1)
        return NamedEncoder(name, hub.revision, hub)
    if colon and kind == "timm":
        vision = TimmEncoder(model, fps or 1)
        return NamedEncoder(name, vision.revision, vision)
    if colon or not name.rpartition(".")[0]:
        raise DataError(f"`--encoder` must be {NAMES}, but is {name!r}.")
    if fps is not None:
        raise DataError(
            f"`--fps` cannot be given with `--encoder {name}`, whose method `sampling` decides "
            "the rate."
        )
    custom, revision = load_custom_encoder(name)
    return NamedEncoder(name, revision, custom)


def _fraction(fps: float) -> Fraction:
    """Returns a rate as a short fraction, which FFmpeg can read."""
    return Fraction(fps).limit_denominator(100_000)


def _hash_of_folder(folder: Path) -> str:
    """Returns a hash of the weight files in a folder."""
    hashes = []
    for path in sorted(folder.iterdir()):
        if path.suffix in WEIGHT_SUFFIXES:
            hashes.append(file_hash(path))
    return f"sha256 {hashes[0] if len(hashes) == 1 else fingerprint(hashes)}"
