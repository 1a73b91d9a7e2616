"""Batched search of an inverted file: one matrix product per list proposes, exact pair distances decide.

A one-by-one scan reads every probed list once per query and is bound by memory; here a list is read once per chunk
of queries. The expansion |x|^2 - 2qx is only used to propose: the k + `MARGIN` best get their exact distance, so that
the answer depends neither on how queries are grouped nor on the number of threads; ties go to the lower position.
Legend: m queries, P probed lists per query, W slots kept per probed list, K candidates per query, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MARGIN = 16
"""Candidates beyond k whose exact distance is computed, against rounding of the matrix product."""

MAX_BLOCK = 1 << 24
"""Largest number of float32 entries of one matrix product (64 MiB)."""

PairCosts = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(queries [m,D], query rows [n], vectors [N,D], vector rows [n]) -> float32 [n]: exact costs of n pairs."""


@dataclass(frozen=True)
class ListStore:
    """Vectors grouped into lists, and how a pair is scored; lower cost is nearer."""

    vectors: Sequence[np.ndarray]  # float32 [n_l, D] per list; views
    positions: Sequence[np.ndarray]  # int64 [n_l] per list: position of each vector in the whole collection
    offsets: Sequence[np.ndarray]  # float32 [n_l] per list: |x|^2, or zeros for the dot product
    scale: float  # cost is proposed as scale * qx + offset: -2 for squared L2 (less |q|^2), -1 for the dot product
    pair_costs: PairCosts

    @classmethod
    def build(
        cls, vectors: Sequence[np.ndarray], positions: Sequence[np.ndarray], pair_costs: PairCosts, *, is_l2: bool
    ) -> ListStore:
        """Group vectors for squared L2 distance (`is_l2`) or for the negated dot product."""
        if not is_l2:
            return cls(vectors, positions, [np.zeros(len(part), np.float32) for part in vectors], -1.0, pair_costs)
        norms = [np.einsum("nd,nd->n", part, part) for part in vectors]
        return cls(vectors, positions, norms, -2.0, pair_costs)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [lists]: vectors per list."""
        return np.array([len(part) for part in self.positions], dtype=np.int64)

    def list_of_positions(self) -> np.ndarray:
        """Return the list that holds each position, int64 [N]."""
        list_of = np.empty(self.sizes.sum(), dtype=np.int64)
        for which, positions in enumerate(self.positions):
            list_of[positions] = which
        return list_of


def scan_lists(
    queries_mD: np.ndarray, probes_mP: np.ndarray, store: ListStore, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest vectors of every query among the lists it probes.

    Args:
        queries_mD: float32, C-contiguous.
        probes_mP: int64, lists to search, distinct within a row; -1 for none.
    Returns:
        positions int64 [m,k] by rising (cost, position), -1 where the lists hold fewer than k; costs float32 [m,k],
        infinite there.
    """
    lists_mK, columns_mK = _propose(queries_mD, probes_mP, store, k + MARGIN)
    num_queries, num_candidates = lists_mK.shape
    costs = np.full(lists_mK.size, np.inf, dtype=np.float32)
    positions = np.full(lists_mK.size, -1, dtype=np.int64)
    columns = columns_mK.ravel()
    for which, members in _by_list(lists_mK):
        costs[members] = store.pair_costs(queries_mD, members // num_candidates, store.vectors[which], columns[members])
        positions[members] = store.positions[which][columns[members]]
    costs_mK, positions_mK = costs.reshape(lists_mK.shape), positions.reshape(lists_mK.shape)
    order = np.lexsort((positions_mK, costs_mK), axis=1)[:, :k]
    found_costs = np.full((num_queries, k), np.inf, dtype=np.float32)
    found_positions = np.full((num_queries, k), -1, dtype=np.int64)
    found_costs[:, : order.shape[1]] = np.take_along_axis(costs_mK, order, axis=1)
    found_positions[:, : order.shape[1]] = np.take_along_axis(positions_mK, order, axis=1)
    return found_positions, found_costs


def chunk_rows(num_probes: int, k: int, store: ListStore, budget_bytes: int = 1 << 28) -> int:
    """Return how many queries fit into `budget_bytes` of proposals at once (at least 1)."""
    width = min(k + MARGIN, int(store.sizes.max(initial=1)))
    return max(1, budget_bytes // (8 * num_probes * max(width, 1)))


def _propose(
    queries_mD: np.ndarray, probes_mP: np.ndarray, store: ListStore, keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return list [m,K] (-1: none) and column in it [m,K] of the `keep` best by matrix product, in no order."""
    (num_queries, num_probes), width = probes_mP.shape, min(keep, int(store.sizes.max(initial=1)))
    costs_mPW = np.full((num_queries, num_probes, width), np.inf, dtype=np.float32)
    columns_mPW = np.full((num_queries, num_probes, width), -1, dtype=np.int32)
    for which, members in _by_list(probes_mP):
        size = len(store.positions[which])
        for some in _blocks(members, size):
            rows, slots = np.divmod(some, num_probes)
            costs_rn = queries_mD[rows] @ store.vectors[which].T
            costs_rn *= store.scale
            costs_rn += store.offsets[which]
            if size > width:
                best = np.argpartition(costs_rn, width - 1, axis=1)[:, :width]
                costs_mPW[rows, slots] = np.take_along_axis(costs_rn, best, axis=1)
                columns_mPW[rows, slots] = best
            else:
                costs_mPW[rows, slots, :size] = costs_rn
                columns_mPW[rows, slots, :size] = np.arange(size)
    costs, columns = costs_mPW.reshape(num_queries, -1), columns_mPW.reshape(num_queries, -1)
    if costs.shape[1] > keep:
        best = np.argpartition(costs, keep - 1, axis=1)[:, :keep]
    else:
        best = np.broadcast_to(np.arange(costs.shape[1]), costs.shape)
    columns = np.take_along_axis(columns, best, axis=1)
    lists = np.take_along_axis(probes_mP, best // width, axis=1)
    return np.where(columns < 0, -1, lists), columns


def _by_list(lists: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (list, flat indices of the entries equal to it) for every list that occurs; -1 is left out."""
    flat = lists.ravel()
    order = np.argsort(flat, kind="stable")
    values, begins = np.unique(flat[order], return_index=True)
    for value, members in zip(values.tolist(), np.split(order, begins[1:]), strict=True):
        if value >= 0:
            yield value, members


def _blocks(members: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut `members` so that one block times `size` stays below `MAX_BLOCK`; nothing for an empty list."""
    step = max(1, MAX_BLOCK // max(size, 1))
    if size:
        for begin in range(0, len(members), step):
            yield members[begin : begin + step]
