"""Types that all packages share: splits, keys of videos, captions, and the entries of a batch.

Legend: V videos per batch, C clips per video, B = V*C clips, F video slots (feature rows), T text
slots, D hidden size. Masks are bool, True = real.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

if TYPE_CHECKING:
    import torch  # takes seconds, and only the types below need it

FEATURE_DIM = 512
"""Width of S3D features, the default of `model.input_dim`. There is one row per second."""


class Split(str, Enum):
    """A part of a data set."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"

    @property
    def shard_name(self) -> str:
        """Name of the split in shard files: `train`, or `val` for both valid and test."""
        return "train" if self is Split.TRAIN else "val"


class ShardKey(NamedTuple):
    """The place of a video: row `row` of the shard number `shard`.

    `index` is its position in the list. It is -1 for videos of planned batches.
    """

    video_id: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    shard: int
    row: int


class Captions(TypedDict):
    """The timed captions of one video: parallel lists, ordered by time."""

    start: list[float]  # seconds
    end: list[float]  # seconds
    cap: list[list[int]]  # word-piece ids without special tokens; may be empty


class ClipBatch(TypedDict, total=False):
    """The tensors of clips, as an aligner makes them.

    The leading axis counts the B clips. Clip c of video v is row v*C + c. A clip of a benchmark's
    test set has no leading axis.
    """

    caps: torch.Tensor  # int64 [B, T]: [CLS] [SEP] ids.. [SEP] [PAD]..
    cmasks: torch.Tensor  # bool [B, T]
    vfeats: torch.Tensor  # float32 or float16 [B, F, width]
    vmasks: torch.Tensor  # bool [B, F]
    video_start: torch.Tensor  # int64 [B]: feature row
    video_end: torch.Tensor  # int64 [B]: feature row, exclusive
    text_start: torch.Tensor  # int64 [B]: caption index
    text_end: torch.Tensor  # int64 [B]: caption index, exclusive
    video_id: Any  # str, or list of V str
    idx: Any  # position in the data set


class ModelOutput(TypedDict, total=False):
    """The output of a two-tower model."""

    pooled_video: torch.Tensor  # float [B, D], not normalised
    pooled_text: torch.Tensor  # float [B, D], not normalised
    video_outputs: torch.Tensor  # float [B, F+2, D]: [CLS], feature rows, [SEP]
    text_outputs: torch.Tensor  # float [B, T-1, D]: [CLS], pieces, [SEP], padding
    video_mask_outputs: torch.Tensor  # bool [B, F+2]: positions that are pooled
    text_mask_outputs: torch.Tensor  # bool [B, T-1]
