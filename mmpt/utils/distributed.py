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
import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=6)
"""How long a process waits for another."""
BLOCK_BYTES = 64 << 20
"""Bytes of a matrix that `gather_rows` sends at a time."""

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

    def gather_objects(self, value: Any) -> list[Any]:
        """Return the `value` of every process, by rank, in every process."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=_side_group())
        return values

    def gather_rows(self, rows_nD: np.ndarray, places_n: np.ndarray) -> np.ndarray | None:
        """Returns the rows of all processes in rank 0, and None in the other processes.

        Args:
            rows_nD: the rows of this process; the same D and dtype in every process.
            places_n: int64, the place of each row in the result. All processes together have every
                place from 0 to N - 1 once.

        Returns:
            [N, D]; it takes this much memory and that of a block.
        """
        places_of_rank = self.gather_objects(places_n)
        step = max(1, BLOCK_BYTES // (rows_nD.dtype.itemsize * rows_nD.shape[1]))
        if not self.is_main:
            for begin in range(0, len(rows_nD), step):
                block_nD = np.array(rows_nD[begin : begin + step])  # torch wants it writable
                dist.send(_as_bytes(block_nD), 0, group=_side_group())
            return None
        whole_ND = np.empty((sum(map(len, places_of_rank)), rows_nD.shape[1]), rows_nD.dtype)
        for sender, places in enumerate(places_of_rank):
            for begin in range(0, len(places), step):
                block_n = places[begin : begin + step]
                if sender == 0:
                    whole_ND[block_n] = rows_nD[begin : begin + step]
                else:
                    block_nD = np.empty((len(block_n), rows_nD.shape[1]), rows_nD.dtype)
                    dist.recv(_as_bytes(block_nD), sender, group=_side_group())
                    whole_ND[block_n] = block_nD
        return whole_ND


def _as_bytes(rows_nD: np.ndarray) -> torch.Tensor:
    """Return a flat uint8 view: gloo moves bytes of any dtype, but reads few dtypes."""
    return torch.from_numpy(rows_nD.reshape(-1).view(np.uint8))
