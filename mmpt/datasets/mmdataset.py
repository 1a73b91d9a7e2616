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


class MMDataset(Dataset[ClipBatch]):
    """The items of one split. Items of the test split are the same in every epoch.

    Args:
        meta: maps an index to a video key and a text key.
        video: reads the features of a video key.
        text: reads the captions of a text key.
        aligner: draws clips and captions and makes their tensors.
        seed: of all random draws.
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
        """Sets the epoch of `self[index]`. Workers that run already keep their epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.meta)

    def __getitem__(self, index: int) -> ClipBatch:
        return self.item(index, self.epoch)

    def without_features(self) -> dict[int, Any]:
        """Returns the video keys that the reader has no features for, by index."""
        keys = {index: self.meta[index][0] for index in range(len(self))}
        return {index: key for index, key in keys.items() if not self.video.has(key)}

    def item(self, index: int, epoch: int) -> ClipBatch:
        """Returns item `index` of `epoch`. Its key `idx` is the index."""
        video_key, text_key = self.meta[index]
        rng = item_rng(self.seed, 0 if self.meta.split is Split.TEST else epoch, index)
        batch = self.aligner(video_key, self.video(video_key), self.text(text_key), rng)
        batch["idx"] = index
        return batch

    def collate(self, items: Sequence[Mapping[str, object]]) -> dict[str, Any]:
        """Returns a batch of items.

        Items that have an axis of clips are joined along it, so that the batch has one leading
        axis. Other items are stacked.
        """
        return join(items) if self.aligner.has_clip_axis else collate(items)


def join(items: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Joins the tensors of items along their first axis. Other values are collated."""
    if not items:
        return {}
    names = [name for name, value in items[0].items() if isinstance(value, torch.Tensor)]
    batch = collate([{name: item[name] for name in item if name not in names} for item in items])
    for name in names:
        values: list[Any] = [item[name] for item in items]
        batch[name] = torch.cat(values) if len(values) > 1 else values[0]
    return _share(batch)


def collate(items: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Collates items key by key: tensors on a new first axis, numbers to tensors, strings to lists.

    Keys whose first value is None are left out. No items make an empty batch, in place of which
    fairseq runs a dummy step.
    """
    if not items:
        return {}
    kept = [name for name, value in items[0].items() if value is not None]
    batch: dict[str, Any] = default_collate([{name: item[name] for name in kept} for item in items])
    return _share(batch)


def _share(batch: dict[str, Any]) -> dict[str, Any]:
    """Moves the tensors of a batch to shared memory, if this is a loader worker.

    The worker's queue would do this later, in a thread. There, a full /dev/shm would raise an error
    that nobody receives, and the main process would wait forever.
    """
    if get_worker_info() is not None:
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()
    return batch
