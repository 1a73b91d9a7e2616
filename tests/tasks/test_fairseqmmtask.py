"""The fairseq task's estimate of the minutes that are left."""

from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import pytest

from mmpt.tasks.fairseqmmtask import FairseqMMTask


class Batches(SimpleNamespace):
    """The progress of an epoch of 10 batches."""

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize(
    ("max_epoch", "max_update", "left"),
    [
        (3, 0, [0, 4, 2, 0]),
        (0, 30, [0, 4, 2, 0]),
        (6, 30, [0, 4, 2, 0]),
        (0, 0, [0, 0, 0, 0]),
    ],
)
def test_minutes_left_at_the_pace_so_far(
    max_epoch: int, max_update: int, left: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run continues after 5 of 30 updates and needs a minute for 5 of them."""
    args = Namespace(max_epoch=max_epoch, max_update=max_update)
    task: Any = SimpleNamespace(start=None, args=args)
    found = []
    for update in (5, 10, 20, 30):
        monkeypatch.setattr("time.monotonic", lambda now=12.0 * update: now)
        task.num_updates = update - 1
        epoch = -(-update // 10)
        batches: Any = Batches(
            epoch=epoch, iterations_in_epoch=update - 10 * (epoch - 1)
        )
        found.append(FairseqMMTask._minutes_left(task, batches))
    assert found == pytest.approx(left)
