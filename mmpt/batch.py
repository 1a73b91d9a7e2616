"""The vocabulary that every layer shares: splits, shard keys, and the shape of every batch.

Legend: V videos per item, C clips per video, B = V*C clips, F video slots (seconds), T text slots,
D hidden size. Masks are bool with True = real.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    import torch  # takes seconds, and only the types below need it

FEATURE_DIM = 512
"""Width of S3D features, one row per second."""


class Split(str, Enum):
    """Which part of a data set is read."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"

    @property
    def shard_name(self) -> str:
        """Name of the split in shard files: `train`, or `val` for both valid and test."""
        return "train" if self is Split.TRAIN else "val"


class ShardKey(NamedTuple):
    """Where a video lives: `row` of file `shard`; `index` is its place in the list (-1 in retrieved
    batches).
    """

    video_id: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    shard: int
    row: int


class Captions(TypedDict):
    """Timed captions of one video: parallel lists ordered by time."""

    start: list[float]  # seconds
    end: list[float]  # seconds
    cap: list[list[int]]  # word-piece ids without special tokens; may be empty


class ClipBatch(TypedDict, total=False):
    """What an aligner makes. Leading axes: none for one clip, C, (V, C), and B once flattened."""

    caps: torch.Tensor  # int64 [..., T]: [CLS] [SEP] ids.. [SEP] [PAD]..
    cmasks: torch.Tensor  # bool [..., T]
    vfeats: torch.Tensor  # float32 or float16 [..., F, 512]
    vmasks: torch.Tensor  # bool [..., F]
    video_start: torch.Tensor  # int64 [...]: seconds
    video_end: torch.Tensor  # int64 [...]: seconds, exclusive
    text_start: torch.Tensor  # int64 [...]: caption index
    text_end: torch.Tensor  # int64 [...]: caption index, exclusive
    video_id: Any  # str, or list of V str
    idx: Any  # position in the data set


class ModelOutput(TypedDict, total=False):
    """What a two-tower model returns."""

    pooled_video: torch.Tensor  # float [B, D], not normalised
    pooled_text: torch.Tensor  # float [B, D], not normalised
    video_outputs: torch.Tensor  # float [B, F+2, D]: [CLS], seconds, [SEP]
    text_outputs: torch.Tensor  # float [B, T-1, D]: [CLS], pieces, [SEP], padding
    video_mask_outputs: torch.Tensor  # bool [B, F+2]: positions that are pooled
    text_mask_outputs: torch.Tensor  # bool [B, T-1]
