"""Turns token ids and feature rows into padded tensors.

Legend: S texts, T text slots, B clips, F video slots (feature rows), E feature width.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.processors.sampling import Span
from mmpt.processors.tokenizer import SpecialTokens

Padded = tuple[torch.Tensor, torch.Tensor]
"""A padded tensor, and the mask that is True at its real positions."""
NUM_SPECIAL = 3  # [CLS], the [SEP] of the video side, and the final [SEP]


def stack_texts(
    texts: Sequence[Sequence[int]], num_slots: int, special: SpecialTokens
) -> Padded:
    """Returns caps int64 [S, T] and cmasks bool [S, T]: [CLS] [SEP] ids.. [SEP] [PAD]..

    Args:
        texts: word-piece ids of each text, of which the first T - 3 are taken.
        num_slots: T.
    """
    shape = (len(texts), num_slots)
    caps_ST = np.full(shape, special.pad, dtype=np.int64)
    cmasks_ST = np.zeros(shape, dtype=bool)
    max_ids = num_slots - NUM_SPECIAL
    for row, ids in enumerate(texts):
        kept = ids[:max_ids]
        tokens = [special.cls, special.sep, *kept, special.sep]
        length = len(tokens)
        caps_ST[row, :length] = tokens
        cmasks_ST[row, :length] = True
    return torch.from_numpy(caps_ST), torch.from_numpy(cmasks_ST)


def stack_clips(
    feature: np.ndarray, spans: Sequence[Span], num_slots: int, name: str
) -> Padded:
    """Returns vfeats float [B, F, E], padded with zeros, and vmasks bool [B, F] of one video.

    Args:
        feature: float [rows, E].
        spans: first and last row + 1 of each clip, of which the first F rows are taken.
        num_slots: F.
        name: the video, for messages.
    Raises:
        DataError: `feature` is not a float array of two axes, or a drawn number is not finite.
    """
    _check_form(feature, name)
    # Copy the rows of each clip; the slots after them stay zero.
    shape = (len(spans), num_slots)
    width = feature.shape[1]
    vfeats_BFE = np.zeros((*shape, width), feature.dtype)
    vmasks_BF = np.zeros(shape, dtype=bool)
    for clip, (start, end) in enumerate(spans):
        last = min(end, start + num_slots)
        rows = feature[start:last]
        length = len(rows)
        vfeats_BFE[clip, :length] = rows
        vmasks_BF[clip, :length] = True
    vfeats = torch.from_numpy(vfeats_BFE)
    _check_finite(vfeats, name)
    return vfeats, torch.from_numpy(vmasks_BF)


def _check_form(feature: np.ndarray, name: str) -> None:
    """Raises DataError unless `feature` is a float array of two axes."""
    found = type(feature).__name__
    if isinstance(feature, np.ndarray):
        if feature.ndim == 2 and feature.dtype.kind == "f":
            return
        found = f"{feature.dtype} of shape {list(feature.shape)}"
    raise DataError(
        f"{name}: features must be a float array [rows, width], but are {found}. Extract "
        "them again."
    )


def _check_finite(vfeats: torch.Tensor, name: str) -> None:
    """Raises DataError unless all numbers are finite."""
    if vfeats.numel() == 0:
        return
    # The maximum of values that include NaN is NaN.
    largest = vfeats.abs().max()
    if largest.isfinite():
        return
    is_bad = ~vfeats.isfinite()
    num_bad = int(is_bad.sum())
    raise DataError(
        f"{name}: features must be finite, but {num_bad} of the {vfeats.numel()} drawn "
        "numbers are NaN or infinite. Extract this video's features again, or take it off the "
        "list."
    )
