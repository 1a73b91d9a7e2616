"""A data set: meta processor, two readers and an aligner; an item depends on (seed, epoch, index)
and nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from mmpt.batch import ClipBatch, Split
from mmpt.processors.base import ItemAligner, MetaProcessor, TextReader, VideoReader
from mmpt.utils.rng import item_rng


class MMDataset(Dataset[ClipBatch]):
    """Items of one split. Items of the test split are the same in every epoch."""

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
        """Make `self[index]` the item of this epoch; workers that already run do not hear of it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.meta)

    def __getitem__(self, index: int) -> ClipBatch:
        return self.item(index, self.epoch)

    def without_features(self) -> dict[int, Any]:
        """Return the video keys that the reader has no features for, by index."""
        keys = {index: self.meta[index][0] for index in range(len(self))}
        return {index: key for index, key in keys.items() if not self.video.has(key)}

    def item(self, index: int, epoch: int) -> ClipBatch:
        """Return item `index` of `epoch`, with `idx`; the same whatever was drawn before."""
        video_key, text_key = self.meta[index]
        rng = item_rng(self.seed, 0 if self.meta.split is Split.TEST else epoch, index)
        batch = self.aligner(video_key, self.video(video_key), self.text(text_key), rng)
        batch["idx"] = index
        return batch


def collate(items: Sequence[Mapping[str, object]]) -> Any:
    """Stack items key by key: tensors on a new first axis, numbers to tensors, strings to lists.

    Keys whose first value is None are left out; no items make an empty batch, which fairseq takes
    as a dummy.
    """
    if not items:
        return {}
    kept = [name for name, value in items[0].items() if value is not None]
    batch = default_collate([{name: item[name] for name in kept} for item in items])
    if get_worker_info() is not None:
        # The worker's queue would do this in a thread, where a full /dev/shm is an error that
        # nobody gets: the main process would wait for ever.
        for value in batch.values():
            if isinstance(value, torch.Tensor):
                value.share_memory_()
    return batch
