"""Clips of pixels to features with S3D, on a CPU or GPU, so that a clip's features do not depend on
its neighbours.

A batch's other clips and its size change the order of a network's sums, and so last bits. A rerun
after an interruption batches other clips together and still has to give the same bytes, so a GPU
always gets full batches (the last one is filled up), and a CPU gets one clip at a time, which costs
nothing there: 1.65 s per clip on one core, alone, 1.73 s in a batch of four. Legend: N clips, T 30
pictures, H, W 224 pixels, C RGB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mmpt.media.s3d import S3D, load_s3d
from mmpt.utils.io import file_hash
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NORM_FLOOR = 1e-12


def open_network(
    weights: Path, *, words: Path | None = None, random_weights: bool = False
) -> tuple[S3D, str]:
    """Returns S3D in eval mode, and what identifies its weights: their SHA-256, or the seed of
    random ones.

    Args:
        weights: the released weights.
        words: the text tower's words (`s3d_dict.npy`); features do not need them.
        random_weights: ignore `weights` and draw random ones, the same in every call.
    Raises:
        CheckpointError: the weights are missing or do not fit.
    """
    if random_weights:
        logger.warning("random weights: these features only serve to try the pipeline")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = S3D(words).eval()
            # With torch's default weights, signals fade, and all clips get nearly equal features.
            for module in network.modules():
                if isinstance(module, nn.Conv3d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            return network, "random, seed 0, Kaiming"
    return load_s3d(weights, words), f"sha256 {file_hash(weights)}"


@dataclass
class Pending:
    """A batch that was given to the device; `result` waits for it."""

    _rows: torch.Tensor  # float32 [N, 512]
    _num: int
    _event: torch.cuda.Event | None = None

    def result(self) -> np.ndarray:
        """Returns features float32 [clips given, 512]."""
        if self._event is not None:
            self._event.synchronize()
        return self._rows[: self._num].numpy()


class ClipEncoder:
    """Runs a network on batches of clips.

    Args:
        network: float [N, 3, 30, 224, 224] in 0..1 -> a dict with `video_embedding` [N, 512].
        device: where it runs.
        dtype: a key of `DTYPES`; weights stay float32, convolutions run in this type.
        batch_size: clips per batch on a GPU.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, dtype: str = "fp32", batch_size: int = 64
    ):
        self.device = device
        self.dtype = DTYPES[dtype]
        self.batch_size = batch_size if device.type == "cuda" else 1
        self._network = network.eval().to(device)

    @torch.inference_mode()
    def start(self, clips: Sequence[np.ndarray]) -> Pending:
        """Gives up to `batch_size` clips, uint8 [30, 224, 224, 3] each, to the device; returns
        before a GPU is done.
        """
        assert 0 < len(clips) <= self.batch_size
        is_gpu = self.device.type == "cuda"
        pixels_NTHWC = torch.zeros(
            (self.batch_size, *clips[0].shape), dtype=torch.uint8, pin_memory=is_gpu
        )
        for slot, clip in zip(pixels_NTHWC, clips, strict=False):
            slot.copy_(torch.from_numpy(clip))
        pixels_NTHWC = pixels_NTHWC.to(self.device, non_blocking=True)
        clips_NCTHW = pixels_NTHWC.permute(0, 4, 1, 2, 3).contiguous().float() / 255
        exact = self.dtype == torch.float32
        with (
            torch.autocast(self.device.type, dtype=self.dtype, enabled=not exact),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=not exact),
        ):
            rows_ND = self._network(clips_NCTHW)["video_embedding"].float()
        if not is_gpu:
            return Pending(rows_ND, len(clips))
        on_host = torch.empty(rows_ND.shape, dtype=rows_ND.dtype, pin_memory=True)
        on_host.copy_(rows_ND, non_blocking=True)
        event = torch.cuda.Event()
        # Not that of torch's current GPU, which may be another.
        event.record(torch.cuda.current_stream(self.device))
        return Pending(on_host, len(clips), event)


def finish_features(rows_ND: np.ndarray, *, l2_normalize: bool, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns a video's features as they are stored: rows divided by their L2 norms if asked, and
    cast.
    """
    if l2_normalize:
        norms_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
        rows_ND = rows_ND / np.maximum(norms_N1, NORM_FLOOR)
    return rows_ND.astype(dtype)
