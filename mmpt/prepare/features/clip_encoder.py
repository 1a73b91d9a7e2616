"""Runs an encoder on batches of clips, on a CPU or GPU, so that a clip's features do not
depend on other clips.

The size and content of a batch change the order in which a network adds numbers, and thus the last
bits of its output. A rerun after an interruption combines clips in other batches, but must give the
same bytes. Therefore a GPU always gets full batches; the last one is padded. A CPU gets one clip
at a time, which is not slower with S3D: 1.65 s per clip on one core, against 1.73 s in a batch of
four.

Legend: N clips, D width of the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmpt.errors import DataError
from mmpt.media.frame_graph import SIZE
from mmpt.media.s3d import S3D, load_s3d
from mmpt.prepare.features.encoders import Encoder
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
NORM_FLOOR = 1e-12  # smallest L2 norm that a row is divided by


def open_network(
    weights: Path, *, words: Path | None = None, random_weights: bool = False
) -> tuple[S3D, str]:
    """Returns S3D in eval mode, and a text that identifies its weights.

    The text is the SHA-256 of the weights, or the seed of random weights.

    Args:
        weights: path of the released weights.
        words: path of the text tower's words (`s3d_dict.npy`). Features do not need them.
        random_weights: ignore `weights` and draw random ones. Every call draws the same.
    Raises:
        CheckpointError: the weights are missing or do not fit.
    """
    if random_weights:
        logger.warning("random weights: these features only serve to try the pipeline")
        return _random_s3d(words), "random, seed 0, Kaiming"
    network = load_s3d(weights, words)
    return network, f"sha256 {file_hash(weights)}"


def _random_s3d(words: Path | None) -> S3D:
    """Returns S3D with the same random weights in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = S3D(words)
        # With torch's default initialisation, activations vanish with depth, and all clips get
        # nearly equal features.
        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network.eval()


@dataclass
class PendingFeatures:
    """The features of a batch that the device may still be computing."""

    _rows: torch.Tensor  # float32 [N, D], on the CPU
    _num_clips: int
    _event: torch.cuda.Event | None = None  # recorded after the copy from the GPU

    def result(self) -> np.ndarray:
        """Waits for the device. Returns the features of the clips, float32 [clips, D]."""
        if self._event is not None:
            self._event.synchronize()
        rows_ND = self._rows[: self._num_clips]  # without the padding of the batch
        return rows_ND.numpy()


class ClipEncoder:
    """Runs an encoder on batches of clips.

    Args:
        encoder: its torch module, if it is one, is moved to the device and set to eval mode.
        device: the device that it runs on.
        dtype: a key of `DTYPES`, the type in which convolutions are computed. Weights stay float32.
        batch_size: number of clips per batch on a GPU.
    """

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device,
        dtype: str = "fp32",
        batch_size: int = 64,
    ):
        self.device = device
        self.dtype = DTYPES[dtype]
        self.batch_size = 1
        if device.type == "cuda":
            self.batch_size = batch_size
        if isinstance(encoder, nn.Module):
            encoder.eval().to(device)
        self.encoder = encoder
        self.sampling = encoder.sampling()
        self.width: int = getattr(encoder, "width", None) or self._find_width()
        """D."""

    def _find_width(self) -> int:
        """Returns the width of the features of a black clip."""
        size = self.sampling.size or SIZE
        shape = (self.sampling.num_frames, size, size, 3)
        clip = self.encoder.prepare(np.zeros(shape, dtype=np.uint8))
        features = self.start([clip]).result()
        if features.ndim != 2:
            raise DataError(
                f"{type(self.encoder).__name__}.encode must return features [clips, width], but "
                f"returns the shape {list(features.shape)}."
            )
        return features.shape[1]

    @torch.inference_mode()
    def start(self, clips: Sequence[torch.Tensor]) -> PendingFeatures:
        """Starts to encode clips. On a GPU, returns before the features are computed.

        Args:
            clips: 1 to `batch_size` clips, as `Encoder.prepare` returns them.
        """
        num_clips = len(clips)
        assert 0 < num_clips <= self.batch_size
        is_gpu = self.device.type == "cuda"
        # Step 1: copy the clips into a full batch. Slots without a clip stay black.
        batch_shape = (self.batch_size, *clips[0].shape)
        inputs = torch.zeros(batch_shape, dtype=clips[0].dtype, pin_memory=is_gpu)
        for slot, clip in zip(inputs, clips, strict=False):
            slot.copy_(clip)
        # Step 2: move them to the device.
        inputs = inputs.to(self.device, non_blocking=True)
        # Step 3: run the network. Float32 means exact float32, without TF32.
        is_exact = self.dtype == torch.float32
        with (
            torch.autocast(self.device.type, dtype=self.dtype, enabled=not is_exact),
            torch.backends.cudnn.flags(
                enabled=True, deterministic=True, allow_tf32=not is_exact
            ),
        ):
            rows_ND = self.encoder.encode(inputs).float()
        if not is_gpu:
            return PendingFeatures(rows_ND, num_clips)
        # Step 4: start the copy to the CPU. The event is recorded when it is complete.
        on_host_ND = torch.empty(rows_ND.shape, dtype=rows_ND.dtype, pin_memory=True)
        on_host_ND.copy_(rows_ND, non_blocking=True)
        event = torch.cuda.Event()
        # torch's current GPU may be another one.
        stream = torch.cuda.current_stream(self.device)
        event.record(stream)
        return PendingFeatures(on_host_ND, num_clips, event)


def finish_features(
    rows_ND: np.ndarray, *, l2_normalize: bool, dtype: np.dtype[Any]
) -> np.ndarray:
    """Returns the features of a video as they are stored.

    Args:
        rows_ND: float32 [rows, D].
        l2_normalize: divide each row by its L2 norm.
        dtype: type of the result.
    """
    if l2_normalize:
        norms_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
        norms_N1 = np.maximum(norms_N1, NORM_FLOOR)
        rows_ND = rows_ND / norms_N1
    return rows_ND.astype(dtype)
