"""Vectors grouped into lists, read block by block; they lie once, in RAM or in a file, where they were given.

What a search reads of every vector is its sketch; the vector itself only when its exact distance is wanted.
Legend: N vectors, L lists, n vectors of a block, D hidden size, S size of a sketch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mmpt.retrieval.sketch import Sketcher

BLOCK_ROWS = 4096
"""Vectors read at once."""


@dataclass(frozen=True)
class VectorLists:
    """Vectors and the lists they belong to; within a list they are read by rising position."""

    vectors: np.ndarray
    """float32 or float16 [N,D], in RAM or memory-mapped."""
    order: np.ndarray
    """int64 [N]: the position of each vector, list after list."""
    starts: np.ndarray
    """int64 [L+1]: where each list begins in `order`."""
    sketches: np.ndarray | None = None
    """float32 [N,S]; None where the vectors are their own sketches."""

    @classmethod
    def whole(cls, vectors_ND: np.ndarray, sketches_NS: np.ndarray | None = None) -> VectorLists:
        """All vectors, `BLOCK_ROWS` consecutive ones a list."""
        starts = np.append(np.arange(0, len(vectors_ND), BLOCK_ROWS), len(vectors_ND))
        return cls(vectors_ND, np.arange(len(vectors_ND)), starts, sketches_NS)

    @classmethod
    def group(
        cls, vectors_ND: np.ndarray, list_of_N: np.ndarray, num_lists: int, sketches_NS: np.ndarray | None = None
    ) -> VectorLists:
        """The vectors by the list of each."""
        starts = np.cumsum([0, *np.bincount(list_of_N, minlength=num_lists)])
        return cls(vectors_ND, np.argsort(list_of_N, kind="stable"), starts, sketches_NS)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> np.ndarray:
        """int64 [L]: vectors per list."""
        return np.diff(self.starts)

    @property
    def positions(self) -> list[np.ndarray]:
        """int64 [n_l] per list: positions of its vectors, rising."""
        return np.split(self.order, self.starts[1:-1])

    def list_of_positions(self) -> np.ndarray:
        """Return the list that holds each position, int64 [N]."""
        list_of_N = np.empty(len(self.order), dtype=np.int64)
        list_of_N[self.order] = np.repeat(np.arange(len(self)), self.sizes)
        return list_of_N

    def blocks(self, which: int) -> Iterator[np.ndarray]:
        """Yield the positions int64 [n] of a list, `BLOCK_ROWS` at a time."""
        for begin in range(self.starts[which], self.starts[which + 1], BLOCK_ROWS):
            yield self.order[begin : min(begin + BLOCK_ROWS, self.starts[which + 1])]

    def read(self, positions_n: np.ndarray) -> np.ndarray:
        """Return a copy of these vectors, float32 [n,D]."""
        return as_float32(self.vectors[positions_n])

    def read_sketches(self, positions_n: np.ndarray) -> np.ndarray:
        """Return a copy of these vectors' sketches, float32 [n,S]."""
        return self.read(positions_n) if self.sketches is None else np.asarray(self.sketches[positions_n])


def as_float32(vectors: np.ndarray) -> np.ndarray:
    """Return float32; the array itself if it is that (torch converts float16 several times faster than NumPy)."""
    return torch.from_numpy(np.ascontiguousarray(vectors)).float().numpy()


def empty_sketches(num: int, dim: int, sketcher: Sketcher, folder: Path | None) -> np.ndarray | None:
    """Return room for sketches, float32 [num,S]; with a folder, in a nameless file there that goes with the array.

    None where vectors are their own sketches.
    """
    if sketcher.basis is None:
        return None
    shape = (num, sketcher.size(dim))
    if folder is None:
        return np.empty(shape, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
