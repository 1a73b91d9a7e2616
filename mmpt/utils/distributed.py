"""The rank and number of processes of a run, and communication between them.

A run of one process needs no process group. Otherwise the functions here use a gloo group of their
own, on CPU tensors, for two reasons. The other processes may wait an hour for rank 0 to plan the
epoch, longer than the timeout of the default group. And no GPU needs to hold the vectors of all
videos.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch.distributed as dist

TIMEOUT = timedelta(hours=6)
"""Longest time that a process waits for another one."""
BLOCK_BYTES = 16 << 20
"""Bytes of a matrix that a process sends at a time in `gather_rows`."""

_gloo_groups: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = (
    WeakKeyDictionary()
)
"""The gloo group of this module for each default group."""


def _gloo_group() -> dist.ProcessGroup:
    """Returns the gloo group. All processes must make the first call together, which creates it."""
    default = dist.group.WORLD
    assert default is not None, "a world of several processes has a process group"
    if default not in _gloo_groups:
        _gloo_groups[default] = dist.new_group(backend="gloo", timeout=TIMEOUT)
    return _gloo_groups[default]


@dataclass(frozen=True)
class World:
    """The rank of this process among `size` processes.

    Methods that communicate must be called in every process.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Returns the world of the initialised process group, or a world of one process."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        """True in the process that writes files and logs."""
        return self.rank == 0

    def broadcast_object(self, value: Any) -> Any:
        """Returns the `value` of rank 0 in every process."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=_gloo_group())
        return values[0]

    def gather_rows(
        self,
        rows_nD: np.ndarray,
        positions_n: np.ndarray,
        block_bytes: int | None = None,
    ) -> np.ndarray | None:
        """Returns a matrix of the rows of all processes in rank 0, and None in the other processes.

        Args:
            rows_nD: the rows of this process. D and the dtype are the same in every process.
            positions_n: int64, the position of each row in the matrix. Each position from 0 to
                N - 1 occurs once in all processes together.
            block_bytes: bytes of rows that a process sends at a time. Default: `BLOCK_BYTES`.

        Returns:
            [N, D], of the dtype of the rows. In addition to this matrix, rank 0 needs memory for
            one block per process.
        """
        # The processes may have different numbers of rows. Each sends its rows in blocks; one that
        # has sent all of its rows sends empty blocks until the largest number is done.
        counts = [len(rows_nD)] * self.size
        if self.size > 1:
            dist.all_gather_object(counts, len(rows_nD), group=_gloo_group())
        num_rows = sum(counts) if self.is_main else 0
        row_size = rows_nD.shape[1]
        matrix_ND = np.empty((num_rows, row_size), rows_nD.dtype)
        row_bytes = rows_nD.dtype.itemsize * row_size
        block_rows = max(1, (block_bytes or BLOCK_BYTES) // row_bytes)
        for begin in range(0, max(counts), block_rows):
            end = begin + block_rows
            block = positions_n[begin:end], rows_nD[begin:end]
            blocks: list[Any] | None = None
            if self.is_main:  # rank 0 receives one block per process
                blocks = [block] * self.size
            if self.size > 1:
                dist.gather_object(block, blocks, dst=0, group=_gloo_group())
            for positions, rows in blocks or ():
                matrix_ND[positions] = rows
        return matrix_ND if self.is_main else None
