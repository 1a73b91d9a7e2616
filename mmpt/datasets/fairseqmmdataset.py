"""Lets fairseq read an `MMDataset`: the data set, and the iterators over the batches of an epoch.

The iterator of planned batches plans them when the epoch begins, and stores the identity of the
plan in checkpoints.
"""

import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from fairseq.data.iterators import CountingIterator, EpochBatchIterator
from torch.utils.data import Dataset

from mmpt.batch import ClipBatch
from mmpt.datasets.mmdataset import MMDataset
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

# Keeps the garbage collector of forked processes away from the objects that they inherit. A
# collection writes to every object that it visits. Without this, each training process and each
# loader worker would get its own copy of the memory pages of all modules.
os.register_at_fork(after_in_child=gc.freeze)


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


class WaitingIterator(CountingIterator):
    """The batches of an epoch. It measures the time that training waits for them."""

    def __init__(self, batches: CountingIterator):
        super().__init__(batches, start=batches.n, total=len(batches))
        self._waited_s = 0.0

    def __next__(self) -> Any:
        begin = time.perf_counter()
        batch = super().__next__()
        self._waited_s += time.perf_counter() - begin
        return batch

    def take_waited_s(self) -> float:
        """Returns the seconds of waiting since the last call. With `update_freq`, several batches
        are taken between two calls.
        """
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s


class ShardedBatchIterator(EpochBatchIterator):
    """fairseq's iterator of an epoch, which can continue with another number of processes."""

    def state_dict(self) -> dict[str, Any]:
        """Returns fairseq's state and the number of processes."""
        return {**super().state_dict(), "num_shards": self.num_shards}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues an interrupted epoch.

        A step takes one batch per process, and the order of the batches is the same for any number
        of processes. So the number of steps is converted to the current number of processes. If
        it is not whole, it is rounded down, and a few batches are repeated.
        """
        steps = state_dict.get("iterations_in_epoch", 0)
        num_batches = steps * state_dict.get("num_shards", self.num_shards)
        steps = num_batches // self.num_shards
        super().load_state_dict({**state_dict, "iterations_in_epoch": steps})


class PlannedBatchIterator(ShardedBatchIterator):
    """One epoch of a data set whose batches are planned when they are first needed.

    fairseq makes one iterator per epoch, because the data set says that iterators cannot be reused.
    Loader workers start after the plan is set, so that they have this epoch's batches.

    Args:
        dataset: training set. Its length and items follow the plan.
        plan: called as plan(epoch, wanted=...). Sets the plan of the data set and returns its
            identity. `wanted` is the identity of the plan to continue with, or None.
        epoch: number of the epoch.
        batch_size: items per batch (1 in pre-training).
        resumes: a state that is loaded belongs to this run, whose plans are in files. Otherwise it
            belongs to the run whose weights this one starts from.
        kwargs: other arguments of `EpochBatchIterator`.
    """

    def __init__(
        self,
        dataset: FairseqMMDataset,
        *,
        plan: Callable[..., str],
        epoch: int,
        batch_size: int,
        resumes: bool = True,
        **kwargs: Any,
    ):
        self._plan = plan
        self._resumes = resumes
        self._batch_size = batch_size
        self._plan_identity: str | None = None
        self._wanted: str | None = None
        self._dummy = dataset.collater([dataset[0]])
        super().__init__(
            dataset,
            dataset.collater,
            self._make_batches,
            epoch=epoch,
            persistent_workers=False,
            **kwargs,
        )

    def _make_batches(self, dataset: FairseqMMDataset, epoch: int) -> list[list[int]]:
        """Plans the epoch if it is not planned yet, and returns the items of each batch.

        fairseq calls this once, when it needs the batches.
        """
        if self._plan_identity is None:
            self._plan_identity = self._plan(epoch, wanted=self._wanted)
        return dataset.batch_by_size(
            dataset.ordered_indices(), max_sentences=self._batch_size
        )

    def _get_iterator_for_epoch(
        self, *args: Any, **kwargs: Any
    ) -> WaitingIterator | None:
        """Returns the batches that are left of the epoch, or None if none is left."""
        batches = super()._get_iterator_for_epoch(*args, **kwargs)
        return None if batches is None else WaitingIterator(batches)

    def take_waited_s(self) -> float:
        """Returns the seconds that training has waited for batches since the last call."""
        if self._cur_epoch_itr is None:
            return 0.0
        return self._cur_epoch_itr.take_waited_s()

    @property
    def first_batch(self) -> dict[str, Any]:
        """A batch for fairseq's dummy steps. It is made before the plan, as only its shape
        matters.
        """
        return self._dummy

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the base class and the identity of the plan."""
        return {**super().state_dict(), "plan": self._plan_identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues an interrupted epoch on its own plan.

        If that plan does not exist any more, the epoch starts again. So does the epoch of a run
        that only starts from the weights of another one, whose plan is not here.
        """
        from_start = {**state_dict, "iterations_in_epoch": 0}
        if not self._resumes:
            super().load_state_dict(from_start)
            return
        self._wanted = state_dict.get("plan")
        done, epoch = state_dict.get("iterations_in_epoch", 0), state_dict["epoch"]
        if done > 0:
            self._plan_identity = self._plan(epoch, wanted=self._wanted)
            if self._plan_identity != self._wanted:
                logger.warning(
                    "the plan that epoch %d was training on is gone: the epoch starts again",
                    epoch,
                )
                state_dict = from_start
        super().load_state_dict(state_dict)
