"""An MMDataset as fairseq wants to see it: sized, batched by count, and rebuilt every epoch when
its plan changes.
"""

from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from torch.utils.data import Dataset

from mmpt.batch import ClipBatch
from mmpt.datasets.mmdataset import MMDataset, collate


class FairseqMMDataset(FairseqDataset):
    """Wraps an `MMDataset`; one item is already one batch of V videos in pre-training.

    Args:
        dataset: the wrapped data set.
        training: items (and planned batches) change from epoch to epoch, so that neither the epoch
            iterator nor its loader workers (which hold a copy of the data set) may outlive their
            epoch.
    Raises:
        TypeError: `dataset` is not a torch data set.
    """

    def __init__(self, dataset: MMDataset, *, training: bool = False):
        if not isinstance(dataset, Dataset):
            raise TypeError(f"expected a torch Dataset, got {type(dataset).__name__}")
        self.dataset = dataset
        self.training = training

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False in training: fairseq would keep the first epoch's batches, workers and draws for
        the whole run.
        """
        return not self.training

    def set_epoch(self, epoch: int) -> None:
        """Remember the epoch; every item's random draws depend on it."""
        self.dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> ClipBatch:
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def size(self, index: int) -> int:
        """Every item counts as 1: there is no batching by tokens."""
        return 1

    def num_tokens(self, index: int) -> int:
        """Every item counts as 1: there is no batching by tokens."""
        return 1

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[list[int]]:
        """Cut `indices` into batches of `max_sentences`, keeping a short last one (fairseq would
        drop it).
        """
        size = max_sentences or 1
        order = [int(index) for index in indices]
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def collater(self, samples: list[ClipBatch]) -> dict[str, Any]:
        """Collate items; no items give an empty batch, for which fairseq runs its dummy batch with
        weight zero.
        """
        return collate(samples)
