"""Turns token ids and feature rows into padded tensors.

Legend: S texts, T text slots, B clips, F video slots (seconds), E feature width.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.processors.tokenizer import SpecialTokens

NUM_SPECIAL = 3  # [CLS], the [SEP] of the video side, and the final [SEP]


def stack_texts(
    texts: Sequence[Sequence[int]], num_slots: int, special: SpecialTokens
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns caps int64 [S, T] and cmasks bool [S, T]: [CLS] [SEP] ids.. [SEP] [PAD]..

    Args:
        texts: word-piece ids of each text, of which the first T - 3 are taken.
        num_slots: T.
    """
    caps_ST = np.full((len(texts), num_slots), special.pad, dtype=np.int64)
    lengths_S = np.zeros(len(texts), dtype=np.int64)
    for row, ids in enumerate(texts):
        tokens = [special.cls, special.sep, *ids[: num_slots - NUM_SPECIAL], special.sep]
        caps_ST[row, : len(tokens)] = tokens
        lengths_S[row] = len(tokens)
    return torch.from_numpy(caps_ST), _masks(lengths_S, num_slots)


def stack_clips(
    feature: np.ndarray, spans: Sequence[tuple[int, int]], num_slots: int, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns vfeats float [B, F, E], padded with zeros, and vmasks bool [B, F] of one video.

    Args:
        feature: float [seconds, E].
        spans: start and end of each clip in seconds, of which the first F are taken.
        num_slots: F.
        name: the video, for messages.
    Raises:
        DataError: `feature` is not a float array of two axes, or a drawn number is not finite.
    """
    if not isinstance(feature, np.ndarray) or feature.ndim != 2 or feature.dtype.kind != "f":
        found = type(feature).__name__
        if isinstance(feature, np.ndarray):
            found = f"{feature.dtype} of shape {list(feature.shape)}"
        raise DataError(
            f"{name}: features must be a float array [seconds, width], but are {found}. Extract "
            "them again."
        )
    vfeats_BFE = np.zeros((len(spans), num_slots, feature.shape[1]), feature.dtype)
    lengths_B = np.zeros(len(spans), dtype=np.int64)
    for clip, (start, end) in enumerate(spans):
        rows = feature[start : min(end, start + num_slots)]
        vfeats_BFE[clip, : len(rows)] = rows
        lengths_B[clip] = len(rows)
    vfeats = torch.from_numpy(vfeats_BFE)
    # The largest magnitude of numbers with a NaN among them is NaN.
    if vfeats.numel() and not vfeats.abs().max().isfinite():
        num_bad = int((~vfeats.isfinite()).sum())
        raise DataError(
            f"{name}: features must be finite, but {num_bad} of the {vfeats.numel()} drawn "
            "numbers are NaN or infinite. Extract this video's features again, or take it off the "
            "list."
        )
    return vfeats, _masks(lengths_B, num_slots)


def _masks(lengths: np.ndarray, num_slots: int) -> torch.Tensor:
    """Returns bool [rows, num_slots]; the first `length` slots of each row are True."""
    return torch.from_numpy(np.arange(num_slots) < lengths[:, None])
