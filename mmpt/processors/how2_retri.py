"""HowTo100M in batches: one item is a batch of V videos, planned by retrieval or at random.

Without retrieval, V consecutive videos of a list or of a shuffled list are one batch. The number of
batches is rounded down to a multiple of 8, as in the released code, which ran on 8 GPUs. A list
that is too short for 8 batches keeps every whole batch. Retrieved plans are used as they are.
"""

import random
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from mmpt.batch import Captions, ClipBatch, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors import base, how2
from mmpt.processors.aligner import FixedLenAligner, OverlappedAligner, VariedLenAligner
from mmpt.shards.video_table import NUM_NAMED

BATCH_MULTIPLE = 8
NO_INDEX = -1  # the index in the keys: a video of a batch has no index of its own


@base.META_PROCESSORS.register
class ShardedHow2VideoRetriMetaProcessor(base.MetaProcessor):
    """Batches of videos. Both keys are a list of (id, -1, shard, row).

    `videos` is the table of the usable videos, and `batches` holds int32 positions in it.
    """

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        """Reads the list as `ShardedHow2MetaProcessor` does and groups it in list order.

        Raises:
            DataError: fewer usable videos than one batch.
        """
        super().__init__(config, split)
        self.num_videos = self.need_int("num_video_per_batch")
        self.videos = how2.ShardedHow2MetaProcessor(config, split).videos
        if len(self.videos) < self.num_videos:
            raise DataError(
                f"{self.list_path()}: fewer videos than one batch: at least "
                f"`dataset.num_video_per_batch` ({self.num_videos}) must be usable, but "
                f"{len(self.videos)} are. List more, or lower it."
            )
        self.batches = self._group(np.arange(len(self.videos)))

    @property
    def cands(self) -> list[list[str]]:
        """The ids of every batch. Each call makes a new list."""
        return [list(map(self.videos.name, batch)) for batch in self.batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[list[ShardKey], list[ShardKey]]:
        keys = [self.videos.key(position, NO_INDEX) for position in self.batches[index]]
        return keys, keys

    def random_candidates(self, rng: random.Random) -> None:
        """Shuffles all videos and groups them again.

        Args:
            rng: seeded with the epoch in the released code.
        """
        order = list(range(len(self.videos)))
        rng.shuffle(order)
        self.batches = self._group(np.array(order))

    def set_candidates(self, batches: Sequence[Sequence[int]]) -> None:
        """Replaces the batches.

        Args:
            batches: positions in `videos`. The number and sizes of batches are arbitrary.
        Raises:
            DataError: a position is not in the list.
        """
        planned = [np.array(batch, dtype=np.int64) for batch in batches]
        num_videos = len(self.videos)
        outside = [batch[(batch < 0) | (batch >= num_videos)] for batch in planned]
        unknown = np.concatenate(outside).tolist() if outside else []
        if unknown:
            raise DataError(
                f"planned batches: every position must be below {num_videos}, the number of usable "
                f"videos of {self.list_path()}, but {len(unknown)} are not (first: "
                f"{', '.join(map(str, unknown[:NUM_NAMED]))}). The plan belongs to another list: "
                "retrieve again."
            )
        self.batches = [batch.astype(np.int32) for batch in planned]

    def _group(self, order: np.ndarray) -> list[np.ndarray]:
        """Returns batches of V consecutive positions of `order`."""
        num_batches = len(order) // self.num_videos
        if num_batches >= BATCH_MULTIPLE:
            num_batches -= num_batches % BATCH_MULTIPLE
        grouped = order[: num_batches * self.num_videos].astype(np.int32)
        return list(grouped.reshape(num_batches, self.num_videos))


@base.VIDEO_PROCESSORS.register
class ShardedVideoRetriVideoProcessor(base.VideoReader):
    """A `ShardedVideoProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.read_one = how2.ShardedVideoProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[np.ndarray]:
        """Returns one float [seconds, 512] per key."""
        return [self.read_one(one) for one in key]


@base.TEXT_PROCESSORS.register
class ShardedVideoRetriTextProcessor(base.TextReader):
    """A `ShardedTextProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.read_one = how2.ShardedTextProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[Captions]:
        """Returns the captions of every key."""
        return [self.read_one(one) for one in key]


class _BatchAligner(FixedLenAligner):
    """An aligner for lists of V videos, which are aligned one after another."""

    takes_batches = True

    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns tensors with the leading axis B = V * C and the list of V ids.

        Clip c of video v is row v * C + c.
        """
        items: list[Any] = []
        for key, feature, captions in zip(video_key, video_feature, text_feature, strict=True):
            items.append(super().__call__(key, feature, captions, rng))
        batch: dict[str, Any] = {}
        for name, value in items[0].items():
            values = [item[name] for item in items]
            batch[name] = torch.cat(values) if isinstance(value, torch.Tensor) else values
        return cast(ClipBatch, batch)


@base.ALIGNERS.register
class VideoRetriAligner(_BatchAligner, VariedLenAligner):
    """A `VariedLenAligner` for lists of V videos."""


@base.ALIGNERS.register
class VideoRetriOverlappedAligner(_BatchAligner, OverlappedAligner):
    """An `OverlappedAligner` for lists of V videos."""
