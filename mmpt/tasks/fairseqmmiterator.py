"""fairseq's epoch iterator for planned batches: plans when the epoch begins, and names the plan in
checkpoints.
"""

import gc
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from mmpt.datasets.fairseqmmdataset import FairseqMMDataset
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@cache
def keep_inherited_memory_shared() -> None:
    """Let processes that this one forks, as loader workers are, never collect what they have
    inherited.

    A collection writes into every object that it visits, and so gives each worker a copy of the
    pages of all modules.
    """
    os.register_at_fork(after_in_child=gc.freeze)


class WaitingIterator(CountingIterator):
    """The batches of an epoch, with the time that training has waited for them."""

    def __init__(self, batches: CountingIterator):
        super().__init__(batches, start=batches.n, total=len(batches))
        self.waited_s = 0.0
        """Seconds since this was last set to 0; with `update_freq`, an update takes several batches
        at once.
        """

    def __next__(self) -> Any:
        begin = time.perf_counter()
        batch = super().__next__()
        self.waited_s += time.perf_counter() - begin
        return batch


class PlannedBatchIterator(EpochBatchIterator):
    """One epoch of a data set whose batches are planned at the moment they are first needed.

    fairseq makes one of these per epoch, because the data set says that iterators must not be
    reused. Loader workers start after the plan is set, so that they hold this epoch's batches.

    Args:
        dataset: training set whose length and items follow its plan.
        plan: called as plan(epoch, wanted=identity of the plan to go on with, or None); sets the
            plan, returns its identity.
        batch_size: items per batch (1 in pre-training).
        others: as for `EpochBatchIterator`.
    """

    def __init__(
        self,
        dataset: FairseqMMDataset,
        *,
        plan: Callable[..., str],
        epoch: int,
        batch_size: int,
        **kwargs: Any,
    ):
        keep_inherited_memory_shared()
        self._plan = plan
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
        """Plan the epoch unless that is done, and cut the plan into batches. fairseq calls this
        once, when needed.
        """
        if self._plan_identity is None:
            self._plan_identity = self._plan(epoch, wanted=self._wanted)
        return dataset.batch_by_size(dataset.ordered_indices(), max_sentences=self._batch_size)

    def _get_iterator_for_epoch(self, *args: Any, **kwargs: Any) -> WaitingIterator | None:
        """Return fairseq's iterator, watched; None when nothing is left of the epoch."""
        batches = super()._get_iterator_for_epoch(*args, **kwargs)
        return None if batches is None else WaitingIterator(batches)

    def take_waited_s(self) -> float:
        """Return the seconds that training has waited for batches since this was last called."""
        epoch = self._cur_epoch_itr
        if epoch is None:
            return 0.0
        waited_s, epoch.waited_s = epoch.waited_s, 0.0
        return waited_s

    @property
    def first_batch(self) -> dict[str, Any]:
        """A batch for fairseq's dummy steps; taken before the plan, since only its shape
        matters.
        """
        return self._dummy

    def state_dict(self) -> dict[str, Any]:
        """fairseq's state, and which plan it belongs to."""
        return {**super().state_dict(), "plan": self._plan_identity, "num_shards": self.num_shards}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue an interrupted epoch on its own plan; when that plan is gone, start the epoch
        again.
        """
        self._wanted = state_dict.get("plan")
        done, epoch = state_dict.get("iterations_in_epoch", 0), state_dict["epoch"]
        if done > 0:
            self._plan_identity = self._plan(epoch, wanted=self._wanted)
            if self._plan_identity != self._wanted:
                logger.warning(
                    "the plan that epoch %d was training on is gone: it starts again", epoch
                )
                done = 0
            # In steps of today's number of processes; a part of a step is done again.
            done = done * state_dict.get("num_shards", self.num_shards) // self.num_shards
            state_dict = {**state_dict, "iterations_in_epoch": done}
        super().load_state_dict(state_dict)
