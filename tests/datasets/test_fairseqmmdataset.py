"""Each epoch trains on the batches of its plan, also with loader workers. An interrupted epoch
continues with its plan.
"""

import gc
import time
from argparse import Namespace
from typing import Any

import pytest
import torch
from fairseq.tasks import LegacyFairseqTask
from torch.utils.data import Dataset, default_collate

from mmpt.datasets.fairseqmmdataset import (
    FairseqMMDataset,
    PlannedBatchIterator,
    ShardedBatchIterator,
)


class PlannedValues(Dataset):
    """Item i is the i-th value of the plan, which is 100 * epoch + i after `plan` was called."""

    def __init__(self, size: int = 6):
        self.values = list(range(size))
        self.calls: list[tuple[int, str | None]] = []

    def plan(self, epoch: int, wanted: str | None) -> str:
        self.calls.append((epoch, wanted))
        self.values = [100 * epoch + place for place in range(5 + epoch)]
        return f"plan-{epoch}"

    def set_epoch(self, epoch: int) -> None:
        pass

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"value": torch.tensor(self.values[index])}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return default_collate(items)


def iterator(
    data: PlannedValues, epoch: int, num_workers: int = 0, plan: Any = None, **more: int
) -> PlannedBatchIterator:
    return PlannedBatchIterator(
        FairseqMMDataset(data, training=True),
        plan=plan or data.plan,
        epoch=epoch,
        batch_size=1,
        num_workers=num_workers,
        **{"buffer_size": 2, **more},
    )


def values_of(epoch_iterator: PlannedBatchIterator) -> list[int]:
    return [
        int(batch["value"]) for batch in epoch_iterator.next_epoch_itr(shuffle=True)
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_epoch_trains_on_its_own_plan(num_workers: int) -> None:
    data = PlannedValues()
    for epoch in (1, 2, 3):
        # fairseq makes one iterator per epoch: the data set forbids reuse.
        seen = values_of(iterator(data, epoch, num_workers))
        assert sorted(seen) == [100 * epoch + place for place in range(5 + epoch)]
    assert data.calls == [(1, None), (2, None), (3, None)]


class EpochOfItem(PlannedValues):
    """Every item is the epoch in which it was drawn."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"value": torch.tensor(self.epoch)}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_sets_without_a_plan_draw_again_in_each_epoch(
    num_workers: int,
) -> None:
    """Iterators are made as in fairseq's own task. Reused workers would repeat the draws of the
    first epoch.
    """
    task = LegacyFairseqTask(Namespace())
    dataset = FairseqMMDataset(EpochOfItem(), training=True)
    for epoch in (1, 2, 3):
        epoch_iterator = task.get_batch_iterator(
            dataset, max_sentences=1, num_workers=num_workers, epoch=epoch
        )
        batches = epoch_iterator.next_epoch_itr()
        assert {int(batch["value"]) for batch in batches} == {epoch}
        if num_workers:
            # Otherwise the garbage collector would wait 5 s for each worker in a later test.
            batches._itr._shutdown_workers()


def test_an_interrupted_epoch_continues_with_its_plan() -> None:
    data = PlannedValues()
    first = iterator(data, 2, 0)
    batches = first.next_epoch_itr(shuffle=True)
    begun = [int(next(batches)["value"]) for _ in range(3)]
    state = first.state_dict()
    assert state["plan"] == "plan-2"
    assert state["iterations_in_epoch"] == 3

    fresh = PlannedValues()
    resumed = iterator(fresh, 2, 2)
    resumed.load_state_dict(state)
    rest = values_of(resumed)
    assert fresh.calls == [(2, "plan-2")]
    assert sorted(begun + rest) == [200 + place for place in range(7)]


INTERRUPTED = {
    "version": 2,
    "epoch": 2,
    "iterations_in_epoch": 3,
    "shuffle": True,
    "plan": "plan-2",
}


def test_an_interrupted_epoch_begins_again_if_its_plan_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = PlannedValues()
    resumed = iterator(
        data, 2, 0, plan=lambda epoch, wanted: data.plan(epoch, wanted) + "-other"
    )
    resumed.load_state_dict(INTERRUPTED)
    assert sorted(values_of(resumed)) == [200 + place for place in range(7)]
    assert data.calls == [(2, "plan-2")]
    assert caplog.messages == [
        "the plan that epoch 2 was training on is gone: the epoch starts again"
    ]


def test_a_run_that_starts_from_the_weights_of_another_begins_a_new_epoch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A plan of random batches has the same name in every run."""
    data = PlannedValues()
    new = iterator(data, 2, 0, resumes=False)
    new.load_state_dict(INTERRUPTED)
    assert sorted(values_of(new)) == [200 + place for place in range(7)]
    assert data.calls == [(2, None)]
    assert caplog.messages == []


def test_an_epoch_is_planned_at_its_start_with_the_plan_of_the_checkpoint() -> None:
    """In this way, a frozen plan is kept after a restart between epochs."""
    data = PlannedValues()
    resumed = iterator(data, 2)
    assert resumed.first_batch["value"].tolist() == [0]
    state = {"version": 2, "epoch": 2, "iterations_in_epoch": 0, "shuffle": True}
    resumed.load_state_dict(state | {"plan": "plan-1"})
    assert data.calls == []
    values_of(resumed)
    assert data.calls == [(2, "plan-1")]


def test_the_state_at_the_end_of_an_epoch_starts_the_next_epoch() -> None:
    data = PlannedValues()
    first = iterator(data, 1, 0)
    values_of(first)
    state = first.state_dict()
    assert (state["epoch"], state["iterations_in_epoch"]) == (2, 0)
    second = iterator(data, 2, 0)
    second.load_state_dict(state)
    assert sorted(values_of(second)) == [200 + place for place in range(7)]


@pytest.mark.parametrize(
    ("before", "now", "done", "continues_at"),
    [(1, 2, 3, 1), (2, 1, 1, 2), (2, 2, 2, 2)],
)
def test_an_interrupted_epoch_continues_with_another_number_of_processes(
    before: int, now: int, done: int, continues_at: int
) -> None:
    data = PlannedValues()
    resumed = iterator(data, 3, num_shards=now, shard_id=0)
    state = {"version": 2, "epoch": 3, "iterations_in_epoch": done, "shuffle": False}
    resumed.load_state_dict(state | {"plan": "plan-3", "num_shards": before})
    seen = [int(batch["value"]) for batch in resumed.next_epoch_itr(shuffle=False)]
    assert seen == list(range(300, 308))[continues_at * now :: now]


@pytest.mark.parametrize(
    ("before", "now", "done", "continues_at"), [(1, 2, 3, 1), (2, 1, 1, 2)]
)
def test_an_epoch_without_a_plan_continues_with_another_number_of_processes(
    before: int, now: int, done: int, continues_at: int
) -> None:
    def sharded(num_shards: int) -> ShardedBatchIterator:
        dataset = FairseqMMDataset(PlannedValues(7), training=True)
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=1)
        return ShardedBatchIterator(
            dataset, dataset.collater, batches, num_shards=num_shards
        )

    interrupted = sharded(before)
    begun = interrupted.next_epoch_itr(shuffle=False)
    for _ in range(done):
        next(begun)
    resumed = sharded(now)
    resumed.load_state_dict(interrupted.state_dict())
    seen = [int(batch["value"]) for batch in resumed.next_epoch_itr(shuffle=False)]
    assert seen == list(range(7))[continues_at * now :: now]


def test_the_last_batch_may_be_smaller() -> None:
    dataset = FairseqMMDataset(PlannedValues(7))
    batches = dataset.batch_by_size(
        dataset.ordered_indices(), max_sentences=3, required_batch_size_multiple=8
    )
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_only_torch_data_sets_are_accepted() -> None:
    with pytest.raises(TypeError, match="torch Dataset"):
        FairseqMMDataset([1, 2, 3])  # type: ignore[arg-type]


class SlowValues(PlannedValues):
    """Items that take a while."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(0.02)
        return super().__getitem__(index)


def test_the_waiting_time_adds_up_until_it_is_read() -> None:
    """With `update_freq`, an update loads several batches before it logs the first of them."""
    data = SlowValues()
    epoch_iterator = iterator(data, 1, buffer_size=0)
    assert epoch_iterator.take_waited_s() == 0
    batches = epoch_iterator.next_epoch_itr(shuffle=False)
    for _ in range(3):
        next(batches)
    waited_s = epoch_iterator.take_waited_s()
    assert 0.06 <= waited_s < 3
    assert epoch_iterator.take_waited_s() == 0
    next(batches)
    assert 0.02 <= epoch_iterator.take_waited_s() < waited_s


class FrozenObjects(PlannedValues):
    """Every item is the number of objects that the process will never collect."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"value": torch.tensor(gc.get_freeze_count())}


@pytest.mark.slow
def test_workers_do_not_collect_inherited_objects() -> None:
    """Otherwise, garbage collection would copy the pages of every module into each worker."""
    data = FrozenObjects()
    before = gc.get_freeze_count()
    assert all(count > 10_000 for count in values_of(iterator(data, 1, num_workers=1)))
    assert gc.get_freeze_count() == before
