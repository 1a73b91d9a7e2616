"""Tensors of ragged rows, stored in two `.npy` files and memory-mapped.

Why memory maps: mapped pages belong to the kernel's page cache. The kernel shares them between
processes and frees them when memory is short. The memory of a data loader worker therefore does not
grow with the rows that it has read. Every process keeps its maps in one bounded cache.

Two details keep this true for HowTo100M (300 shards x 3 tensors x 2 files):

- The files are mapped by torch. Python's `mmap` keeps a file descriptor open per map and would
  exceed the usual limit of 1,024.
- The kernel does not free the page tables of a map, which take 1 GB for HowTo100M's features.
  Therefore a large map is replaced by a new one after every `ROWS_PER_MAP` rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write, load_npy

MAX_OPEN_SHARDS = 1024
ROWS_PER_MAP = 128
"""Rows read before a large map is replaced. Each row may need 4 kB of page tables, so a map has at
most about 0.5 MB of them.
"""
LARGE_MAP = 256 << 20
"""Bytes above which a map counts as large. The page tables of a smaller one take at most 0.5 MB."""
REMEDY = "Pack this shard again, or download it again."


class ShardedTensor:
    """A tensor of ragged rows, stored as one concatenated array.

    Row i is `data[starts[i]:starts[i + 1]]` and may be empty.

    Args:
        data: all rows one after another, [total, ...] of any dtype.
        starts: offset of every row, and the total, [rows + 1] of any integer dtype.
        name: name of the tensor in messages; its path stem if it was loaded.
    Raises:
        DataError: `starts` does not rise from 0 to the length of `data`.
    """

    def __init__(self, data: np.ndarray, starts: np.ndarray, name: str = "ShardedTensor"):
        _check_starts(data, starts, name)
        self.data = data
        self.starts = starts
        self.name = name
        self._mapped = False
        self._rows_read = 0

    @classmethod
    def from_list(cls, rows: Sequence[np.ndarray]) -> ShardedTensor:
        """Returns the tensor of `rows`, arrays that differ in the length of their first axis."""
        starts = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
        return cls(np.concatenate(rows), starts)

    @classmethod
    def load(
        cls, stem: str | os.PathLike[str], mmap_mode: Literal["r"] | None = None
    ) -> ShardedTensor:
        """Opens `<stem>_data.npy` and `<stem>_starts.npy`; the stem may contain dots.

        Args:
            mmap_mode: "r" maps the files read-only; None reads them into memory.
        Raises:
            DataError: a file is missing, truncated or not a `.npy` file, or the two do not fit.
        """
        stem = os.fspath(stem)
        read = _map_npy if mmap_mode else partial(load_npy, remedy=REMEDY)
        shard = cls(read(f"{stem}_data.npy"), read(f"{stem}_starts.npy"), name=stem)
        shard._mapped = mmap_mode == "r"
        return shard

    def save(self, stem: str | os.PathLike[str]) -> None:
        """Writes both files under temporary names, then renames them.

        The maps of this process are dropped, so that the new files are opened.
        """
        stem = os.fspath(stem)
        with (
            atomic_write(f"{stem}_data.npy", "wb") as data,
            atomic_write(f"{stem}_starts.npy", "wb") as starts,
        ):
            np.save(data, np.ascontiguousarray(self.data), allow_pickle=False)
            np.save(starts, self.starts.astype(np.int64), allow_pickle=False)
        open_shard.cache_clear()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns a row as a view of the data.

        Raises:
            DataError: the file was replaced by one of another length while it was in use.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"{self.name}: row {row} of {len(self)}")
        self._rows_read += 1
        if self._mapped and self._rows_read % ROWS_PER_MAP == 0 and self.data.nbytes > LARGE_MAP:
            # Rows that the caller still holds keep the old map alive.
            self.data = _map_npy(f"{self.name}_data.npy")
            _check_starts(self.data, self.starts, self.name)
        return self.data[self.starts[row] : self.starts[row + 1]]

    def lengths(self) -> np.ndarray:
        """Returns the length of every row, int64 [rows]."""
        return np.diff(self.starts.astype(np.int64, copy=False))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._mapped:
            return open_shard, (self.name,)  # the other process maps the files itself
        return type(self), (self.data, self.starts, self.name)


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def open_shard(stem: str) -> ShardedTensor:
    """Returns the mapped tensor at `stem`. It is opened and checked once per process, and forked
    workers inherit it.
    """
    return ShardedTensor.load(stem, mmap_mode="r")


def _check_starts(data: np.ndarray, starts: np.ndarray, name: str) -> None:
    """Raises DataError unless `starts` are integers that rise from 0 to the length of `data`."""
    if data.ndim == 0:
        raise DataError(f"{name}_data.npy: must have rows, but is a single number. {REMEDY}")
    if starts.ndim != 1 or len(starts) == 0 or starts.dtype.kind not in "iu":
        found = f"are {starts.dtype} of shape {starts.shape}"
    elif starts[0] != 0 or starts[-1] != len(data):
        found = f"go from {starts[0]} to {starts[-1]}"
    elif len(drops := np.flatnonzero(starts[1:] < starts[:-1])):
        found = f"fall to {starts[drops[0] + 1]} at position {drops[0] + 1}"
    else:
        return
    raise DataError(
        f"{name}_starts.npy: starts and data disagree: starts must be integers that rise from 0 to "
        f"{len(data)}, the rows of {name}_data.npy, but {found}. {REMEDY}"
    )


def _map_npy(path: str) -> np.ndarray:
    """Maps a `.npy` file read-only, without keeping a file descriptor."""
    # NumPy parses the header, then torch maps the same bytes.
    array = load_npy(path, REMEDY, mmap_mode="r")
    assert isinstance(array, np.memmap)
    size = array.offset + array.nbytes
    content = torch.from_file(path, shared=False, size=size, dtype=torch.uint8).numpy()
    values = content[array.offset :].view(array.dtype)
    mapped = values.reshape(array.shape, order="C" if array.flags.c_contiguous else "F")
    mapped.flags.writeable = False
    return mapped
