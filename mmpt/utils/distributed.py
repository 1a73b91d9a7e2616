"""The processes of a run as a plain value, and their exchanges; one process needs no group.

Exchanges use a gloo group of their own, on CPU tensors. Rank 0 may plan for an hour while the
others wait, which exceeds the time limit of the training group (minutes). No GPU has to hold the
vectors of all videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch.distributed as dist

PATIENCE = timedelta(hours=6)
"""How long a process waits for another."""
BLOCK_BYTES = 16 << 20
"""Bytes of a matrix that a process sends at a time in `gather_rows`."""

_side_groups: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()


def _side_group() -> dist.ProcessGroup:
    """Returns the gloo group, which the first call makes, at the same point in every process."""
    default = dist.group.WORLD
    assert default is not None, "a world of several processes has a process group"
    if default not in _side_groups:
        _side_groups[default] = dist.new_group(backend="gloo", timeout=PATIENCE)
    return _side_groups[default]


@dataclass(frozen=True)
class World:
    """This process's place among `size` processes. Every process must take part in an exchange."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world of the initialised process group, or a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """True in the process that writes files and logs."""
        return self.rank == 0

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's `value` in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_side_group())
        return box[0]

    def gather_rows(self, rows_nD: np.ndarray, places_n: np.ndarray) -> np.ndarray | None:
        """Returns the rows of all processes in rank 0, and None in the other processes.

        Args:
            rows_nD: the rows of this process; the same D and dtype in every process.
            places_n: int64, the place of each row in the result. All processes together have every
                place from 0 to N - 1 once.

        Returns:
            [N, D]; it takes this much memory and that of a block per process.
        """
        lengths = [len(rows_nD)] * self.size
        if self.size > 1:
            dist.all_gather_object(lengths, len(rows_nD), group=_side_group())
        step = max(1, BLOCK_BYTES // (rows_nD.dtype.itemsize * rows_nD.shape[1]))
        num_rows = sum(lengths) if self.is_main else 0
        whole_ND = np.empty((num_rows, rows_nD.shape[1]), rows_nD.dtype)
        for begin in range(0, max(lengths), step):
            block = places_n[begin : begin + step], rows_nD[begin : begin + step]
            blocks: list[Any] | None = [block] * self.size if self.is_main else None
            if self.size > 1:
                dist.gather_object(block, blocks, dst=0, group=_side_group())
            for places, rows in blocks or ():
                whole_ND[places] = rows
        return whole_ND if self.is_main else None
