"""Coarse threads: whole blocks of work side by side, each by one thread, instead of every small product by all.

A product of a few milliseconds that two threads share costs more in waiting for each other than it saves, above all
where other programs want the cores too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workplace:
    """Where matrix products are computed, and the memory that they may take there beside the queries."""

    device: torch.device
    memory_bytes: int
    enter_thread: Callable[[], None]
    """Called first in each thread of `side_by_side`; it shall keep libraries from starting threads of their own."""

    @property
    def num_threads(self) -> int:
        """Blocks of work at a time: as many as torch would use for one, but one on an accelerator."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], workplace: Workplace) -> Iterator[Result]:
    """Yield the function's results in the order of the items, several computed at a time."""
    if workplace.num_threads == 1 or len(items) == 1:
        yield from map(function, items)
        return
    before = torch.get_num_threads()  # torch gives threads to come the number that was last set in any thread
    pool = ThreadPoolExecutor(workplace.num_threads, initializer=workplace.enter_thread)
    try:
        yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
