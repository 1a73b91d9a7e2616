"""HowTo100M: the list of videos, S3D features, tokenised captions, and batches of V videos.

An item is one video, or a batch of V videos, planned by retrieval or at random. Without retrieval,
V consecutive videos of a list or of a shuffled list are one batch. The number of batches is rounded
down to a multiple of 8, as in the released code, which ran on 8 GPUs. A list that is too short for
8 batches keeps every whole batch. Retrieved plans are used as they are.

Legend: n captions, W slots for word pieces.
"""

import random
from collections.abc import Sequence
from copy import copy
from itertools import chain
from typing import Any, Self, cast

import numpy as np
import torch

from mmpt.batch import Captions, ClipBatch, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors import base
from mmpt.processors.aligner import FixedLenAligner, OverlappedAligner, VariedLenAligner
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.shardedtensor import open_captions, open_features, times_stem
from mmpt.shards.video_table import (
    MAX_LISTED,
    load_video_table,
    read_id_list,
)

BATCH_MULTIPLE = 8
NO_INDEX = -1  # the index in the keys: a video of a batch has no index of its own


@base.META_PROCESSORS.register
class How2MetaProcessor(base.MetaProcessor):
    """The videos of the split's list. Both keys are the id."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        names = read_id_list(self.list_path())
        self.items = [(name, name) for name in names]


@base.META_PROCESSORS.register
class ShardedHow2MetaProcessor(base.MetaProcessor):
    """The usable videos of the split's list. Both keys are (id, index, shard, row)."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        vocab_size = None  # of BERT, if captions are read
        if config.bert_name is not None and config.tfeat_dir is not None:
            vocab_size = special_tokens(config.bert_name, config.use_fast).vocab_size
        self.need_str("vfeat_dir")
        self.videos = load_video_table(self.list_path(), config, split, vocab_size)

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order. Each call makes a new list."""
        return self.videos.name_list()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[ShardKey, ShardKey]:
        key = self.videos.key(index, index)
        return key, key


@base.VIDEO_PROCESSORS.register
class ShardedVideoProcessor(base.VideoReader):
    """A reader of features from `<vfeat_dir>/{train|val}_<shard>`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.vfeat_dir = self.need_str("vfeat_dir")

    def __call__(self, key: ShardKey) -> np.ndarray:
        """Returns float [rows, width], a view of the mapped file."""
        width = self.config.feature_dim
        shard = open_features(self.vfeat_dir, self.split, key.shard, width)
        return shard[key.row]


@base.TEXT_PROCESSORS.register
class ShardedTextProcessor(base.TextReader):
    """A reader of captions from `<tfeat_dir>{train|val}_<shard>.startends` and `.caps_ids`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.tfeat_dir = self.need_str("tfeat_dir")

    def __call__(self, key: ShardKey) -> Captions:
        """Returns the captions without their padding.

        Raises:
            DataError: a time is not finite, an id is below -1, or the two files disagree about this
                video.
        """
        all_times, all_ids = open_captions(self.tfeat_dir, self.split, key.shard)
        times_n2 = all_times[key.row]
        ids_nW = all_ids[key.row]
        problem = _problem(times_n2, ids_nW)
        if problem:
            stem = times_stem(self.tfeat_dir, self.split, key.shard)
            raise DataError(
                f"{stem}: video {key.video_id} (row {key.row}) must have {problem}"
            )
        start, end = times_n2.T.tolist()
        # Padding is -1.
        cap = []
        for ids_W in ids_nW:
            ids = ids_W[ids_W >= 0]
            cap.append(ids.tolist())
        return Captions(start=start, end=end, cap=cap)


def _problem(times_n2: np.ndarray, ids_nW: np.ndarray) -> str:
    """Returns the part of a message after "must have", or an empty string for good captions."""
    num_times = len(times_n2)
    num_captions = len(ids_nW)
    if num_times != num_captions:
        return (
            f"as many times as captions, but has {num_times} and {num_captions}. Tokenise this "
            "shard again."
        )
    if not np.isfinite(times_n2).all():
        return "finite caption times, but has NaN or infinity. Correct its captions."
    lowest = ids_nW.min(initial=0)
    if lowest < -1:
        return f"word-piece ids of at least -1, but has {lowest}. Tokenise it again."
    return ""


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
        self.videos = ShardedHow2MetaProcessor(config, split).videos
        num_usable = len(self.videos)
        if num_usable < self.num_videos:
            raise DataError(
                f"{self.list_path()}: fewer videos than one batch: at least "
                f"`dataset.num_video_per_batch` ({self.num_videos}) must be usable, but "
                f"{num_usable} are. List more, or lower it."
            )
        self.batches: Sequence[np.ndarray] | np.ndarray
        self.batches = self._group(np.arange(num_usable))

    @property
    def cands(self) -> list[list[str]]:
        """The ids of every batch. Each call makes a new list."""
        named = []
        for batch in self.batches:
            ids = [self.videos.name(position) for position in batch]
            named.append(ids)
        return named

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[list[ShardKey], list[ShardKey]]:
        positions = self.batches[index]
        keys = [self.videos.key(position, NO_INDEX) for position in positions]
        return keys, keys

    def random_candidates(self, rng: random.Random) -> None:
        """Shuffles all videos and groups them again.

        Args:
            rng: seeded with the epoch in the released code.
        """
        num_videos = len(self.videos)
        order = list(range(num_videos))
        rng.shuffle(order)
        self.batches = self._group(np.array(order))

    def set_candidates(self, batches: Sequence[Sequence[int]]) -> None:
        """Replaces the batches.

        Args:
            batches: positions in `videos`. The number and sizes of batches are arbitrary.
        Raises:
            DataError: a position is not in the list.
        """
        # Check all positions before anything is replaced.
        num_videos = len(self.videos)
        unknown = []
        for position in chain.from_iterable(batches):
            if not 0 <= position < num_videos:
                unknown.append(position)
        if unknown:
            first = ", ".join(map(str, unknown[:MAX_LISTED]))
            raise DataError(
                f"planned batches: every position must be below {num_videos}, the number of usable "
                f"videos of {self.list_path()}, but {len(unknown)} are not (first: {first}). The "
                "plan belongs to another list: retrieve again."
            )
        self.batches = [np.array(batch, dtype=np.int32) for batch in batches]

    def one_by_one(self) -> Self:
        """Returns a copy with one batch per video, in the order of the list."""
        singles = copy(self)
        positions = np.arange(len(self.videos), dtype=np.int32)
        singles.batches = positions[:, None]
        return singles

    def _group(self, order: np.ndarray) -> list[np.ndarray]:
        """Returns batches of V consecutive positions of `order`."""
        num_batches = len(order) // self.num_videos
        if num_batches >= BATCH_MULTIPLE:
            num_batches -= num_batches % BATCH_MULTIPLE
        num_grouped = num_batches * self.num_videos
        grouped = order[:num_grouped].astype(np.int32)
        batches = grouped.reshape(num_batches, self.num_videos)
        return list(batches)


@base.VIDEO_PROCESSORS.register
class ShardedVideoRetriVideoProcessor(base.VideoReader):
    """A `ShardedVideoProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.read_one = ShardedVideoProcessor(config, split)

    def __call__(self, key: Sequence[ShardKey]) -> list[np.ndarray]:
        """Returns one float [rows, width] per key."""
        return [self.read_one(one) for one in key]


@base.TEXT_PROCESSORS.register
class ShardedVideoRetriTextProcessor(base.TextReader):
    """A `ShardedTextProcessor` for lists of keys."""

    takes_batches = True

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.read_one = ShardedTextProcessor(config, split)

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
        # Align the videos one after another, with the same generator.
        items: list[Any] = []
        for key, feature, captions in zip(
            video_key, video_feature, text_feature, strict=True
        ):
            item = super().__call__(key, feature, captions, rng)
            items.append(item)
        # Join their tensors along the axis of clips.
        batch: dict[str, Any] = {}
        for name in items[0]:
            values = [item[name] for item in items]
            if name == "video_id":
                batch[name] = values
            else:
                batch[name] = torch.cat(values)
        return cast(ClipBatch, batch)


@base.ALIGNERS.register
class VideoRetriAligner(_BatchAligner, VariedLenAligner):
    """A `VariedLenAligner` for lists of V videos."""


@base.ALIGNERS.register
class VideoRetriOverlappedAligner(_BatchAligner, OverlappedAligner):
    """An `OverlappedAligner` for lists of V videos."""
