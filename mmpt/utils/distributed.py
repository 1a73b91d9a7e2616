"""The processes of a run as a plain value, and the few exchanges that are needed; one process needs no group.

Exchanges go over a gloo group of their own, on CPU tensors: rank 0 may plan for an hour while the others wait, which
the time limit of the training group (minutes) would take for a hang, and no accelerator holds a matrix of all videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=6)
"""How long a process waits for another."""
BLOCK_BYTES = 64 << 20
"""Most bytes of a matrix that travel at once, and so the memory that `gather_rows` needs beside the matrix."""

_side_groups: WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = WeakKeyDictionary()


def _side_group() -> dist.ProcessGroup:
    """Return the gloo group beside the default group; made at the first call, at the same point in every process."""
    default = dist.group.WORLD
    assert default is not None, "a world of several processes has a process group"
    if default not in _side_groups:
        _side_groups[default] = dist.new_group(backend="gloo", timeout=PATIENCE)
    return _side_groups[default]


class Rows(Protocol):
    """A matrix whose rows are read and written by their places: an array, or a file that looks like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, places_n: np.ndarray, /) -> np.ndarray: ...

    def __setitem__(self, places_n: np.ndarray, rows_nD: np.ndarray, /) -> None: ...


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

    def lowest_holder(self, held_N: np.ndarray) -> np.ndarray:
        """Return for every place the lowest rank whose `held_N` (bool) is true there, int64 [N]; `size` for none."""
        holder_N = torch.from_numpy(np.where(held_N, self.rank, self.size))
        if self.size > 1:
            dist.all_reduce(holder_N, dist.ReduceOp.MIN, group=_side_group())
        return holder_N.numpy()

    def gather_rows(self, rows_ND: Rows, holder_N: np.ndarray) -> None:
        """Bring every row from the process that holds it to rank 0, whose `rows_ND` then has all of them.

        Args:
            rows_ND: the same shape and dtype in every process; each has the rows it holds.
            holder_N: int64, the rank that holds each row, the same in every process.
        """
        row_bytes = rows_ND.dtype.itemsize * int(np.prod(rows_ND.shape[1:]))
        for sender in range(1, self.size):
            for places_n in cut_places(np.flatnonzero(holder_N == sender), row_bytes):
                if self.rank == sender:
                    dist.send(_as_bytes(np.ascontiguousarray(rows_ND[places_n])), 0, group=_side_group())
                elif self.is_main:
                    block_nD = np.empty((len(places_n), *rows_ND.shape[1:]), rows_ND.dtype)
                    dist.recv(_as_bytes(block_nD), sender, group=_side_group())
                    rows_ND[places_n] = block_nD


def cut_places(places_N: np.ndarray, row_bytes: int) -> Iterator[np.ndarray]:
    """Cut places into blocks of at most `BLOCK_BYTES` of rows, one row at least."""
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    for begin in range(0, len(places_N), step):
        yield places_N[begin : begin + step]


def _as_bytes(rows_nD: np.ndarray) -> torch.Tensor:
    """Return a flat uint8 view: gloo moves bytes of any dtype, but reads few dtypes."""
    return torch.from_numpy(rows_nD.reshape(-1).view(np.uint8))
