"""HowTo100M in batches: one item is a batch of V videos, planned by retrieval or at random.

Without retrieval, V consecutive videos of a list or of a shuffled list are one batch. The number of
batches is rounded down to a multiple of 8, as in the released code, which ran on 8 GPUs. A list
that is too short for 8 batches keeps every whole batch. Retrieved plans are used as they are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import torch

from mmpt.batch import Captions, ClipBatch, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.aligner import FixedLenAligner, OverlappedAligner, VariedLenAligner
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    MetaProcessor,
    TextReader,
    VideoReader,
)
from mmpt.processors.caption_rows import CaptionRows
from mmpt.processors.how2 import (
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.shards.video_table import NUM_NAMED
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

BATCH_MULTIPLE = 8
NO_INDEX = -1  # the index in the keys: a video of a batch has no index of its own


@META_PROCESSORS.register
class ShardedHow2VideoRetriMetaProcessor(MetaProcessor):
    """Batches of videos. Both keys are a list of (id, -1, shard, row).

    The plan is two arrays: positions in the video table, batch after batch, and the start of each
    batch among them.
    """

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        """Reads the list as `ShardedHow2MetaProcessor` does and groups it in list order.

        Raises:
            DataError: fewer usable videos than one batch.
        """
        super().__init__(config, split)
        self.num_videos = self.need_int("num_video_per_batch")
        self.videos = ShardedHow2MetaProcessor(config, split).videos
        if len(self.videos) < self.num_videos:
            raise DataError(
                f"{self.list_path()}: fewer videos than one batch: at least "
                f"`dataset.num_video_per_batch` ({self.num_videos}) must be usable, but "
                f"{len(self.videos)} are. List more, or lower it."
            )
        self._group(np.arange(len(self.videos)))
        if len(self) % BATCH_MULTIPLE:
            logger.info(
                "%s: %d videos are fewer than %d batches of %d; all %d whole batches are used",
                self.list_path(),
                len(self.videos),
                BATCH_MULTIPLE,
                self.num_videos,
                len(self),
            )

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order. Each call makes a new list."""
        return self.videos.name_list()

    @property
    def cands(self) -> list[list[str]]:
        """The ids of every batch. Each call makes a new list."""
        batches = []
        for begin, end in pairwise(self._starts.tolist()):
            batches.append([self.videos.name(position) for position in self._positions[begin:end]])
        return batches

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> tuple[list[ShardKey], list[ShardKey]]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        positions = self._positions[self._starts[index] : self._starts[index + 1]]
        keys = [self.videos.key(position, NO_INDEX) for position in positions]
        return keys, keys

    def random_candidates(self, rng: random.Random) -> None:
        """Shuffles all videos and groups them again.

        Args:
            rng: seeded with the epoch in the released code.
        """
        order = list(range(len(self.videos)))
        rng.shuffle(order)
        self._group(np.array(order))

    def set_candidates(self, batches: Sequence[Sequence[str]]) -> None:
        """Replaces the plan.

        Args:
            batches: ids of videos; any number of batches, of any size.
        Raises:
            DataError: no batch, an empty one, or ids that are not among the usable videos.
        """
        sizes = [len(batch) for batch in batches]
        if not sizes or min(sizes) == 0:
            found = "none" if not sizes else f"batch {sizes.index(0)} is empty"
            raise DataError(
                f"retrieved batches: there must be at least one, each with a video, but {found}. "
                "Retrieve again."
            )
        ids = list(chain.from_iterable(batches))
        positions = self.videos.positions(ids)
        unknown = [ids[place] for place in np.flatnonzero(positions < 0)]
        if unknown:
            raise DataError(
                f"retrieved batches: every id must be a usable video of {self.list_path()}, but "
                f"{len(unknown)} are not (first: {', '.join(unknown[:NUM_NAMED])}). The plan "
                "belongs to another list: retrieve again."
            )
        self._plan(positions, np.cumsum([0, *sizes]))

    def _group(self, order: np.ndarray) -> None:
        """Makes batches of V consecutive positions of `order`."""
        num_batches = len(order) // self.num_videos
        if num_batches >= BATCH_MULTIPLE:
            num_batches -= num_batches % BATCH_MULTIPLE
        starts = np.arange(num_batches + 1) * self.num_videos
        self._plan(order[: starts[-1]], starts)

    def _plan(self, positions: np.ndarray, starts: np.ndarray) -> None:
        self._positions = positions.astype(np.int32)
        self._starts = starts.astype(np.int64)


@VIDEO_PROCESSORS.register
class ShardedVideoRetriVideoProcessor(VideoReader):
    """A `ShardedVideoProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.one = ShardedVideoProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[np.ndarray]:
        """Returns one float [seconds, 512] per key."""
        return [self.one(one) for one in key]


@TEXT_PROCESSORS.register
class ShardedVideoRetriTextProcessor(TextReader):
    """A `ShardedTextProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.one = ShardedTextProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[CaptionRows]:
        """Returns the captions of every key."""
        return self.one.read(key)


def _align_batch(
    aligner: FixedLenAligner,
    keys: Sequence[Any],
    features: Sequence[np.ndarray],
    captions: Sequence[Captions | CaptionRows],
    rng: random.Random,
) -> ClipBatch:
    """Returns tensors with leading axes (V, C) and the list of V ids."""
    flat = aligner.align_videos(keys, features, captions, rng)
    batch = ClipBatch()
    for name, value in flat.items():
        assert isinstance(value, torch.Tensor)
        shape = (len(keys), aligner.num_clips, *value.shape[1:])
        batch[name] = value.view(shape)  # type: ignore[literal-required]
    batch["video_id"] = [key[0] for key in keys]
    return batch


@ALIGNERS.register
class VideoRetriAligner(VariedLenAligner):
    """A `VariedLenAligner` for lists of V videos."""

    takes_batches = True
    clip_axes = 2

    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns tensors with leading axes (V, C) and the list of V ids."""
        return _align_batch(self, video_key, video_feature, text_feature, rng)


@ALIGNERS.register
class VideoRetriOverlappedAligner(OverlappedAligner):
    """An `OverlappedAligner` for lists of V videos."""

    takes_batches = True
    clip_axes = 2

    def __call__(
        self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns tensors with leading axes (V, C) and the list of V ids."""
        return _align_batch(self, video_key, video_feature, text_feature, rng)
