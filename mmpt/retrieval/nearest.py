"""The k nearest found so far of every query, kept as sortable 64-bit keys: cost above, position below.

One key holds both, so that a plain integer sort gives the order (cost, position) that makes ties go to the lower
position, and merging is a partition of rows. Legend: m queries, k neighbours, n found pairs.
"""

from __future__ import annotations

import numpy as np

NONE = np.iinfo(np.int64).max
"""The key of no vector: after every other, and its lower half read as int32 is -1."""


class Nearest:
    """The k lowest (cost, position) of every query among the pairs shown so far."""

    def __init__(self, num_queries: int, k: int):
        """Start with no pair; 8 bytes for each of the m * k places."""
        self._keys_mk = np.full((num_queries, k), NONE, dtype=np.int64)  # the last column is each row's highest

    def worst(self, rows: np.ndarray) -> np.ndarray:
        """Return the k-th lowest cost of these queries, float32; infinite where fewer than k pairs were shown."""
        keys = self._keys_mk[rows, -1]
        return np.where(keys == NONE, np.float32(np.inf), _costs(keys))

    def unfilled(self, rows: np.ndarray) -> np.ndarray:
        """Return the places in `rows` of the queries that were shown fewer than k pairs."""
        return np.flatnonzero(self._keys_mk[rows, -1] == NONE)

    def add(self, rows_n: np.ndarray, costs_n: np.ndarray, positions_n: np.ndarray) -> None:
        """Take in pairs that were not shown before.

        Args:
            rows_n: queries, rising.
            costs_n: float32.
            positions_n: int64, below 2^31.
        """
        if not len(rows_n):
            return
        starts = np.concatenate([[0], np.flatnonzero(rows_n[1:] != rows_n[:-1]) + 1, [len(rows_n)]])
        members, counts = rows_n[starts[:-1]], starts[1:] - starts[:-1]
        fresh = np.full((len(members), counts.max()), NONE, dtype=np.int64)
        fresh[np.arange(fresh.shape[1]) < counts[:, None]] = _keys(costs_n, positions_n)
        k = self._keys_mk.shape[1]
        merged = np.concatenate([self._keys_mk[members], fresh], axis=1)
        merged.partition(k - 1, axis=1)
        self._keys_mk[members] = merged[:, :k]

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions int64 [m,k] by rising (cost, position), -1 for none, and costs float32, infinite there."""
        keys_mk = np.sort(self._keys_mk, axis=1)
        positions_mk = keys_mk.astype(np.int32).astype(np.int64)
        return positions_mk, np.where(positions_mk < 0, np.float32(np.inf), _costs(keys_mk))


def _keys(costs: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return int64 keys that order as (cost, position)."""
    bits = (costs + np.float32(0)).view(np.int32)  # adding 0 makes -0 the same as 0
    return (_flip(bits).astype(np.int64) << 32) | positions


def _costs(keys: np.ndarray) -> np.ndarray:
    return _flip((keys >> 32).astype(np.int32)).view(np.float32)


def _flip(bits: np.ndarray) -> np.ndarray:
    """Map the bits of float32 to int32 of the same order, and back: those of negative numbers are turned round."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
