"""Turns token ids and feature rows into padded arrays, for all clips of an item at once.

The arrays are allocated once for all clips, and masks are made from lengths. Text is filled by one
gather. Features are copied clip by clip, because each video is a map of its own.

Legend: B clips, T text slots, F video slots, E feature width, P word pieces, M = T - 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.processors.tokenizer import SpecialTokens

NUM_SPECIAL = 3  # [CLS], the [SEP] of the video side, and the final [SEP]

# Bit patterns of float16: the largest finite number is 0x7BFF, infinity is 0x7C00, NaNs are above.
# The sign is the highest bit.
HALF_INFINITY = 0x7C00
HALF_NEGATIVE_INFINITY = 0xFC00


class TextSlots:
    """The texts of B clips: [CLS] [SEP] ids.. [SEP] [PAD].."""

    def __init__(self, num_clips: int, num_slots: int, special: SpecialTokens):
        """Makes B empty texts of T = `num_slots` slots."""
        assert num_slots > NUM_SPECIAL
        self.special = special
        self.max_ids = num_slots - NUM_SPECIAL
        self.caps_BT = np.full((num_clips, num_slots), special.pad, dtype=np.int64)
        self.caps_BT[:, :2] = special.cls, special.sep
        self.lengths_B = np.full(num_clips, 2, dtype=np.int64)

    def write(self, clip: int, ids: list[int]) -> None:
        """Sets the text of `clip` to the first T - 3 of `ids`."""
        ids = [*ids[: self.max_ids], self.special.sep]
        end = 2 + len(ids)
        self.caps_BT[clip, 2:end] = ids
        self.lengths_B[clip] = end

    def write_spans(self, pieces_P: np.ndarray, begins_B: np.ndarray, ends_B: np.ndarray) -> None:
        """Sets the text of every clip to the first T - 3 of `pieces_P[begin:end]`."""
        counts_B = np.minimum(ends_B - begins_B, self.max_ids)
        slots_M = np.arange(self.max_ids)
        # A span at the end of `pieces_P` is read beyond it. The extra element makes sure that there
        # is one to read, and what lies beyond a span is replaced by padding.
        pieces_P = np.append(pieces_P, self.special.pad)
        ids_BM = pieces_P.take(begins_B[:, None] + slots_M, mode="clip")
        is_id_BM = slots_M < counts_B[:, None]
        self.caps_BT[:, 2:-1] = np.where(is_id_BM, ids_BM, self.special.pad)
        self.caps_BT[np.arange(len(self.caps_BT)), 2 + counts_B] = self.special.sep
        self.lengths_B = 3 + counts_B

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns caps int64 [B, T] and cmasks bool [B, T]."""
        return torch.from_numpy(self.caps_BT), _masks(self.lengths_B, self.caps_BT.shape[1])


class VideoSlots:
    """The feature rows of B clips, padded with zeros to F seconds."""

    def __init__(self, num_clips: int, num_slots: int, width: int, dtype: np.dtype):
        """Makes B empty clips of F = `num_slots` seconds and feature width E = `width`."""
        self.vfeats_BFE = np.zeros((num_clips, num_slots, width), dtype)
        self.lengths_B = np.zeros(num_clips, dtype=np.int64)

    def write(self, clip: int, rows_nE: np.ndarray) -> None:
        """Appends rows to `clip`. Rows that do not fit into F are left out."""
        used = self.lengths_B[clip]
        end = min(used + len(rows_nE), self.vfeats_BFE.shape[1])
        self.vfeats_BFE[clip, used:end] = rows_nE[: end - used]
        self.lengths_B[clip] = end

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns vfeats float [B, F, E], of the features' dtype, and vmasks bool [B, F]."""
        return torch.from_numpy(self.vfeats_BFE), _masks(self.lengths_B, self.vfeats_BFE.shape[1])


def _masks(lengths_B: np.ndarray, num_slots: int) -> torch.Tensor:
    """Returns bool [B, num_slots]; the first `length` slots of each row are True."""
    return torch.from_numpy(np.arange(num_slots) < lengths_B[:, None])


def all_finite(array: np.ndarray) -> bool:
    """Returns True if no float of `array` is NaN or infinite.

    NumPy computes float16 in float32, so the bits of a contiguous float16 array are compared
    instead, which takes a twentieth of the time.
    """
    if array.size == 0:
        return True
    if array.dtype != np.float16 or not array.flags.c_contiguous:
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))  # NaN wins both
    # Read as int16, positive NaN and infinity are the largest numbers; read as uint16, negative
    # ones are.
    largest = array.view(np.int16).max()
    largest_unsigned = array.view(np.uint16).max()
    return bool(largest < HALF_INFINITY and largest_unsigned < HALF_NEGATIVE_INFINITY)


def check_feature(feature: Any, name: str) -> None:
    """Raises DataError unless `feature` is a float array [seconds, width].

    Args:
        name: the video, for the message.
    """
    if not isinstance(feature, np.ndarray) or feature.ndim != 2 or feature.dtype.kind != "f":
        found = type(feature).__name__
        if isinstance(feature, np.ndarray):
            found = f"{feature.dtype} of shape {list(feature.shape)}"
        raise DataError(
            f"{name}: features must be a float array [seconds, width], but are {found}. Extract "
            "them again."
        )


def check_finite(vfeats: np.ndarray, name: str) -> None:
    """Raises DataError if a number is NaN or infinite.

    Args:
        name: the video, for the message.
    """
    if not all_finite(vfeats):
        bad = ~np.isfinite(vfeats)
        raise DataError(
            f"{name}: features must be finite, but {int(bad.sum())} of the {bad.size} drawn "
            "numbers are NaN or infinite. Extract this video's features again, or take it off the "
            "list."
        )
