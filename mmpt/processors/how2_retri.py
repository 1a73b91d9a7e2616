"""HowTo100M in batches of videos: one item is a whole batch of V videos, planned by retrieval or at random.

The plan is kept as positions in the video table, not as lists of ids. Groups of V consecutive videos are cut to a
multiple of 8 batches (the release's number of GPUs, kept for its arithmetic); lists too short for that keep every
whole group. Retrieved plans are taken as they are.
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
from mmpt.processors.how2 import ShardedHow2MetaProcessor, ShardedTextProcessor, ShardedVideoProcessor
from mmpt.shards.video_table import NUM_NAMED
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

BATCH_MULTIPLE = 8
NO_INDEX = -1  # a video in a batch has no index of its own


@META_PROCESSORS.register
class ShardedHow2VideoRetriMetaProcessor(MetaProcessor):
    """Batches of videos; both keys are a list of (id, -1, shard, row)."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        """Read the list as `ShardedHow2MetaProcessor` does and group it in list order.

        Raises:
            DataError: fewer usable videos than one batch.
        """
        super().__init__(config, split)
        self.num_videos = self.need_int("num_video_per_batch")
        self.videos = ShardedHow2MetaProcessor(config, split).videos
        if len(self.videos) < self.num_videos:
            raise DataError(
                f"{self.list_path()}: fewer videos than one batch: at least `dataset.num_video_per_batch` "
                f"({self.num_videos}) must be usable, but {len(self.videos)} are. List more, or lower it."
            )
        self._group(np.arange(len(self.videos)))
        if len(self) % BATCH_MULTIPLE:
            logger.info(
                "%s: %d videos are fewer than %d batches of %d; all %d whole batches are used",
                self.list_path(), len(self.videos), BATCH_MULTIPLE, self.num_videos, len(self),
            )  # fmt: skip

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order (built anew at each call)."""
        return self.videos.name_list()

    @property
    def cands(self) -> list[list[str]]:
        """The ids of every batch (built anew at each call)."""
        bounds = pairwise(self._starts.tolist())
        return [[self.videos.name(position) for position in self._positions[begin:end]] for begin, end in bounds]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> tuple[list[ShardKey], list[ShardKey]]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        positions = self._positions[self._starts[index] : self._starts[index + 1]]
        keys = [self.videos.key(position, NO_INDEX) for position in positions]
        return keys, keys

    def random_candidates(self, rng: random.Random) -> None:
        """Group all videos anew after shuffling them with `rng` (the release: seeded with the epoch)."""
        order = list(range(len(self.videos)))
        rng.shuffle(order)
        self._group(np.array(order))

    def set_candidates(self, batches: Sequence[Sequence[str]]) -> None:
        """Replace the plan by `batches` of ids; any number of batches, of any size.

        Raises:
            DataError: no batch, an empty one, or ids that are not among the usable videos.
        """
        sizes = [len(batch) for batch in batches]
        if not sizes or min(sizes) == 0:
            found = "none" if not sizes else f"batch {sizes.index(0)} is empty"
            raise DataError(f"retrieved batches: there must be at least one, each with a video, but {found}.")
        ids = list(chain.from_iterable(batches))
        positions = self.videos.positions(ids)
        unknown = [ids[place] for place in np.flatnonzero(positions < 0)]
        if unknown:
            raise DataError(
                f"retrieved batches: every id must be a usable video of {self.list_path()}, but {len(unknown)} are not "
                f"(first: {', '.join(unknown[:NUM_NAMED])}). The plan belongs to another list: retrieve again."
            )
        self._plan(positions, np.cumsum([0, *sizes]))

    def _group(self, order: np.ndarray) -> None:
        """Make batches of V consecutive positions of `order`."""
        num_batches = len(order) // (BATCH_MULTIPLE * self.num_videos) * BATCH_MULTIPLE
        if num_batches == 0:
            num_batches = len(order) // self.num_videos
        self._plan(order[: num_batches * self.num_videos], np.arange(num_batches + 1) * self.num_videos)

    def _plan(self, positions: np.ndarray, starts: np.ndarray) -> None:
        self._positions = positions.astype(np.int32)
        self._starts = starts.astype(np.int64)


@VIDEO_PROCESSORS.register
class ShardedVideoRetriVideoProcessor(VideoReader):
    """`ShardedVideoProcessor` for every key of a list."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.one = ShardedVideoProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[np.ndarray]:
        """Return one float [seconds, 512] per key."""
        return [self.one(one) for one in key]


@TEXT_PROCESSORS.register
class ShardedVideoRetriTextProcessor(TextReader):
    """`ShardedTextProcessor` for every key of a list."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.one = ShardedTextProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[CaptionRows]:
        """Return the captions of every key."""
        return self.one.read(key)


def _align_batch(
    aligner: FixedLenAligner,
    keys: Sequence[Any],
    features: Sequence[np.ndarray],
    captions: Sequence[Captions | CaptionRows],
    rng: random.Random,
) -> ClipBatch:
    """Return tensors with leading axes (V, C) and the list of V ids."""
    flat = aligner.align_videos(keys, features, captions, rng)
    batch = ClipBatch()
    for name, value in flat.items():
        assert isinstance(value, torch.Tensor)
        batch[name] = value.view(len(keys), aligner.num_clips, *value.shape[1:])  # type: ignore[literal-required]
    batch["video_id"] = [key[0] for key in keys]
    return batch


@ALIGNERS.register
class VideoRetriAligner(VariedLenAligner):
    """`VariedLenAligner` over a list of V videos."""

    takes_batches = True
    clip_axes = 2

    def __call__(self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random) -> ClipBatch:
        """Return tensors with leading axes (V, C) and the list of V ids."""
        return _align_batch(self, video_key, video_feature, text_feature, rng)


@ALIGNERS.register
class VideoRetriOverlappedAligner(OverlappedAligner):
    """`OverlappedAligner` over a list of V videos."""

    takes_batches = True
    clip_axes = 2

    def __call__(self, video_key: Any, video_feature: Any, text_feature: Any, rng: random.Random) -> ClipBatch:
        """Return tensors with leading axes (V, C) and the list of V ids."""
        return _align_batch(self, video_key, video_feature, text_feature, rng)
