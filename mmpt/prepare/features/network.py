"""The network that extracts features, and a text that identifies its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from mmpt.media.s3d import S3D, load_s3d
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

RANDOM_SEED = 0


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
            torch.manual_seed(RANDOM_SEED)
            return S3D(words).eval(), f"random, seed {RANDOM_SEED}"
    network = load_s3d(weights, words)
    with open(weights, "rb") as file:
        return network, f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"
