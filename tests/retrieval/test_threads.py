"""Work side by side: order, errors, and what it leaves behind."""

import threading

import pytest
import torch

from mmpt.retrieval.threads import Workplace, side_by_side


@pytest.fixture
def workplace():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield Workplace(torch.device("cpu"), 1, lambda: torch.set_num_threads(1))
    torch.set_num_threads(before)


def test_results_come_in_order_from_threads_that_start_no_others(workplace):
    meeting = threading.Barrier(3, timeout=60)

    def work(item):
        if item < 3:
            meeting.wait()  # three at a time, or this breaks
        return item, torch.get_num_threads()

    assert list(side_by_side(work, range(20), workplace)) == [(item, 1) for item in range(20)]
    assert torch.get_num_threads() == 3


def test_an_error_ends_it(workplace):
    done = []

    def work(item):
        done.append(item)
        return 1 / (item - 5)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(10_000), workplace))
    assert len(done) < 10_000
    assert torch.get_num_threads() == 3


def test_one_item_or_an_accelerator_needs_no_threads(workplace):
    here = threading.get_ident()
    assert list(side_by_side(lambda _: threading.get_ident(), [0], workplace)) == [here]
    accelerator = Workplace(torch.device("cuda"), 1, lambda: None)  # named only
    assert list(side_by_side(lambda _: threading.get_ident(), [0, 1], accelerator)) == [here, here]
