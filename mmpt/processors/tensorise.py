"""Token ids and feature rows to padded arrays, all clips of an item at once.

The arrays are allocated once for all clips. Text is gathered at once. Features are copied clip by clip: they come from
as many maps as there are videos, and slices cost what the memory traffic costs. Masks come from the lengths in one
comparison.
Legend: B clips, T text slots, F video slots, E feature width, P word pieces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.processors.tokenizer import SpecialTokens

NUM_SPECIAL = 3  # [CLS], the [SEP] of the video side, and the final [SEP]


class TextSlots:
    """Captions of B clips: [CLS] [SEP] ids.. [SEP] [PAD].."""

    def __init__(self, num_clips: int, num_slots: int, special: SpecialTokens):
        assert num_slots > NUM_SPECIAL
        self.special = special
        self.max_ids = num_slots - NUM_SPECIAL
        self.caps_BT = np.full((num_clips, num_slots), special.pad, dtype=np.int64)
        self.caps_BT[:, :2] = special.cls, special.sep
        self.lengths_B = np.full(num_clips, 2, dtype=np.int64)

    def write(self, clip: int, ids: list[int]) -> None:
        """Set the caption of `clip` to the first T - 3 of `ids`."""
        ids = [*ids[: self.max_ids], self.special.sep]
        end = 2 + len(ids)
        self.caps_BT[clip, 2:end] = ids
        self.lengths_B[clip] = end

    def write_spans(self, pieces_P: np.ndarray, begins_B: np.ndarray, ends_B: np.ndarray) -> None:
        """Set every caption to the first T - 3 of `pieces_P[begin:end]`."""
        clips_B = np.arange(len(self.caps_BT))
        counts_B = np.minimum(ends_B - begins_B, self.max_ids)
        slots_M = np.arange(self.max_ids)
        pieces_P = np.append(pieces_P, self.special.pad)  # so that there is one to take where there are none
        ids_BM = pieces_P.take(begins_B[:, None] + slots_M, mode="clip")
        self.caps_BT[:, 2:-1] = np.where(slots_M < counts_B[:, None], ids_BM, self.special.pad)
        self.caps_BT[clips_B, 2 + counts_B] = self.special.sep
        self.lengths_B = 3 + counts_B

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return caps int64 [B, T] and cmasks bool [B, T]."""
        return torch.from_numpy(self.caps_BT), _masks(self.lengths_B, self.caps_BT.shape[1])


class VideoSlots:
    """Feature rows of B clips, zero-padded to F seconds."""

    def __init__(self, num_clips: int, num_slots: int, width: int, dtype: np.dtype):
        self.vfeats_BFE = np.zeros((num_clips, num_slots, width), dtype)
        self.lengths_B = np.zeros(num_clips, dtype=np.int64)

    def write(self, clip: int, rows_nE: np.ndarray) -> None:
        """Append rows to `clip`; what does not fit into F is left out."""
        used = self.lengths_B[clip]
        end = min(used + len(rows_nE), self.vfeats_BFE.shape[1])
        self.vfeats_BFE[clip, used:end] = rows_nE[: end - used]
        self.lengths_B[clip] = end

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return vfeats float [B, F, E] in the features' own precision and vmasks bool [B, F]."""
        return torch.from_numpy(self.vfeats_BFE), _masks(self.lengths_B, self.vfeats_BFE.shape[1])


def _masks(lengths_B: np.ndarray, num_slots: int) -> torch.Tensor:
    return torch.from_numpy(np.arange(num_slots) < lengths_B[:, None])


def all_finite(array: np.ndarray) -> bool:
    """True when no float of `array` is NaN or infinite; float16 is judged by its bits, where isfinite is slow."""
    if array.size == 0:
        return True
    if array.dtype != np.float16 or not array.flags.c_contiguous:
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))  # NaN wins both
    # As integers, positive NaN and infinity are the largest int16, negative ones the largest uint16.
    return bool(array.view(np.int16).max() < 0x7C00 and array.view(np.uint16).max() < 0xFC00)


def check_feature(feature: Any, name: str) -> None:
    """Raise DataError unless `feature` is a float array [seconds, width]; `name` is the video's."""
    if not isinstance(feature, np.ndarray) or feature.ndim != 2 or feature.dtype.kind != "f":
        is_array = isinstance(feature, np.ndarray)
        found = f"{feature.dtype} of shape {list(feature.shape)}" if is_array else type(feature).__name__
        raise DataError(f"{name}: features must be a float array [seconds, width], but are {found}.")


def check_finite(vfeats: np.ndarray, name: str) -> None:
    """Raise DataError when a number is NaN or infinite; `name` is the video's."""
    if not all_finite(vfeats):
        bad = ~np.isfinite(vfeats)
        raise DataError(
            f"{name}: features must be finite, but {int(bad.sum())} of the {bad.size} drawn numbers are NaN or "
            "infinite. Extract this video's features again, or take it off the list."
        )
