"""A wrapper that lets fairseq read an `MMDataset`."""

from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from torch.utils.data import Dataset

from mmpt.batch import ClipBatch
from mmpt.datasets.mmdataset import MMDataset


class FairseqMMDataset(FairseqDataset):
    """An `MMDataset` for fairseq. In pre-training, one item is one batch of V videos.

    Args:
        dataset: the wrapped data set.
        training: True if items and planned batches change from epoch to epoch. fairseq must then
            make a new iterator for each epoch, as its loader workers hold a copy of the data set.
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
        """False in training. fairseq would otherwise keep the batches, workers and draws of the
        first epoch for the whole run.
        """
        return not self.training

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, on which the random draws of every item depend."""
        self.dataset.set_epoch(epoch)

    def __getitem__(self, index: int) -> ClipBatch:
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def size(self, index: int) -> int:
        """Returns 1 for every item: batches are not made by number of tokens."""
        return 1

    def num_tokens(self, index: int) -> int:
        """Returns 1 for every item: batches are not made by number of tokens."""
        return 1

    def batch_by_size(
        self,
        indices: np.ndarray,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[list[int]]:
        """Splits `indices` into batches of `max_sentences`.

        The last batch may be smaller. (fairseq's own method would drop it.)
        """
        size = max_sentences or 1
        order = [int(index) for index in indices]
        return [order[begin : begin + size] for begin in range(0, len(order), size)]

    def collater(self, samples: list[ClipBatch]) -> dict[str, Any]:
        """Returns a batch of items. Without items it is empty, and fairseq runs a dummy step."""
        return self.dataset.collate(samples)
