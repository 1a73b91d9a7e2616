"""A data set of four parts: meta processor, video reader, text reader and aligner.

An item depends only on (seed, epoch, index). A batch is a dictionary of collated items.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from mmpt.batch import ClipBatch, Split
from mmpt.processors.base import ItemAligner, MetaProcessor, TextReader, VideoReader
from mmpt.utils.rng import item_rng

Batch = dict[str, Any]
"""Collated items: their tensors, and lists of their other values, by key."""


class MMDataset(Dataset[ClipBatch]):
    """The items of one split. Items of the test split are the same in every epoch.

    Args:
        meta: maps an index to a video key and a text key.
        video: reads the features of a video key.
        text: reads the captions of a text key.
        aligner: draws clips and captions and makes their tensors.
        seed: base of all random draws.
    """

    def __init__(
        self,
        meta: MetaProcessor,
        video: VideoReader,
        text: TextReader,
        aligner: ItemAligner,
        *,
        seed: int,
    ) -> None:
        self.meta = meta
        self.video = video
        self.text = text
        self.aligner = aligner
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of `self[index]`. Loader workers that run already keep the old epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.meta)

    def __getitem__(self, index: int) -> ClipBatch:
        return self.item(index, self.epoch)

    def without_features(self) -> dict[int, Any]:
        """Returns the video keys that the reader has no features for, by index."""
        missing = {}
        for index in range(len(self)):
            video_key, _ = self.meta[index]
            if not self.video.has(video_key):
                missing[index] = video_key
        return missing

    def item(self, index: int, epoch: int) -> ClipBatch:
        """Returns item `index` of `epoch`. Its key `idx` is the index."""
        if self.meta.split is Split.TEST:
            epoch = 0
        rng = item_rng(self.seed, epoch, index)
        video_key, text_key = self.meta[index]
        video_feature = self.video(video_key)
        text_feature = self.text(text_key)
        batch = self.aligner(video_key, video_feature, text_feature, rng)
        batch["idx"] = index
        return batch

    def collate(self, items: Sequence[Mapping[str, object]]) -> Batch:
        """Returns a batch of items.

        Items that have an axis of clips are joined along it, so that the batch has one leading
        axis. Other items are stacked.
        """
        return collate(items, join=self.aligner.has_clip_axis)


def collate(items: Sequence[Mapping[str, object]], *, join: bool = False) -> Batch:
    """Collates items key by key: numbers to tensors, strings to lists, tensors to larger ones.

    Keys whose first value is None are left out. Without items, the batch is empty, and fairseq runs
    a dummy step.

    Args:
        join: join tensors along their first axis. By default they are stacked on a new one.
    """
    if not items:
        return {}
    batch: Batch = {}
    for name, first in items[0].items():
        if first is None:
            continue
        values: list[Any] = [item[name] for item in items]
        if not join or not isinstance(first, torch.Tensor):
            batch[name] = default_collate(values)
        elif len(items) == 1:  # the usual case, in which nothing is copied
            batch[name] = first
        else:
            batch[name] = torch.cat(values)
    if get_worker_info() is not None:
        _share(batch)
    return batch


def _share(batch: Batch) -> None:
    """Moves the tensors of a loader worker's batch to shared memory.

    The worker's queue would do this later, in a thread. There, a full /dev/shm would raise an error
    that nobody receives, and the main process would wait forever.
    """
    for value in batch.values():
        if isinstance(value, torch.Tensor):
            value.share_memory_()
