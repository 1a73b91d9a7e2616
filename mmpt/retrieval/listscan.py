"""Batched search of lists of vectors: a matrix product of sketches rules out, exact pair distances decide the rest.

A one-by-one scan reads every probed list once per query and is bound by memory; here a list is read once for all
queries that probe it. Nearly all products are only compared with a bound: the k-th lowest exact cost that the query has
so far, which its nearest list, visited first, makes tight. The bound allows for rounding, so that no neighbour is lost:
the answer depends neither on how queries are grouped, nor on threads, nor on the device.
Legend: m queries, r of them at once, P probed lists per query, n vectors of a block, k neighbours, D hidden size,
S size of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import torch

from mmpt.retrieval.nearest import Nearest
from mmpt.retrieval.sketch import rounding
from mmpt.retrieval.threads import Workplace
from mmpt.retrieval.vectorlists import BLOCK_ROWS, VectorLists

PairCosts = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(queries [m,D], query rows [n], vectors [N,D], vector rows [n]) -> float32 [n]: exact costs of n pairs."""
Visit = tuple[int, np.ndarray]
"""A list to read, and the rows int64 of the queries that search it then."""

BYTES_PER_PRODUCT = 32
"""Of a product, its comparison, and, should it pass, its indices."""
CROWD = 0.3
"""Share of a block's pairs that pass as sketches from which their whole product costs less than so many exact pairs."""
UNDERFLOW = 1e-30
"""More than sums of squares and products can lose because terms are below 1e-38."""


@dataclass(frozen=True)
class Metric:
    """How a pair is scored; lower cost is nearer."""

    is_l2: bool
    """Squared L2 distance; else the negated dot product."""
    pair_costs: PairCosts


class ListScan:
    """The search of some queries."""

    def __init__(
        self,
        queries_mD: np.ndarray,
        sketches_mS: np.ndarray,
        lists: VectorLists,
        k: int,
        metric: Metric,
        workplace: Workplace,
    ):
        """Begin a search of the k nearest.

        Args:
            queries_mD: float32, C-contiguous.
            sketches_mS: their sketches, as the lists' vectors have them.
        """
        self._queries_mD, self._lists, self._k, self._metric = queries_mD, lists, k, metric
        self._device = workplace.device
        bytes_per_query = workplace.num_threads * BLOCK_ROWS * BYTES_PER_PRODUCT
        self._rows = max(1, workplace.memory_bytes // bytes_per_query)
        self._sketch_products = _Products(sketches_mS, queries_mD.shape[1], metric.is_l2, self._device)
        self._nearest = Nearest(len(queries_mD), k)
        # Two threads may read two lists for one query. A bound is read without the lock: an older one is only higher.
        self._lock = Lock()

    def visit(self, visit: Visit) -> None:
        """Show some queries the vectors of a list, which they have not seen before."""
        which, rows = visit
        for positions_n in self._lists.blocks(which):
            block = self._sketch_products.block(self._lists.read_sketches(positions_n))
            for begin in range(0, len(rows), self._rows):
                some = rows[begin : begin + self._rows]
                costs_rn = self._sketch_products.costs(some, block)
                self._take_first(costs_rn, some, positions_n)
                self._take_near(costs_rn, some, positions_n, block)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return positions int64 [m,k] by rising (cost, position), -1 where fewer than k were shown, and costs float32
        [m,k], infinite there."""
        return self._nearest.sorted()

    @cached_property
    def _full_products(self) -> _Products:
        return _Products(self._queries_mD, self._queries_mD.shape[1], self._metric.is_l2, self._device)

    def _take_first(self, costs_rn: torch.Tensor, rows: np.ndarray, positions_n: np.ndarray) -> None:
        """Give the queries that have no k neighbours yet, hence no bound, the k nearest by sketch; they become inf."""
        unbounded = self._nearest.unfilled(rows)
        if len(unbounded) and len(positions_n) > self._k:
            places = torch.from_numpy(unbounded).to(self._device)
            columns = costs_rn[places].topk(self._k, largest=False, sorted=False).indices
            costs_rn[places[:, None], columns] = torch.inf
            self._add(rows[np.repeat(unbounded, self._k)], positions_n, columns.flatten().cpu().numpy())

    def _take_near(self, costs_rn: torch.Tensor, rows: np.ndarray, positions_n: np.ndarray, block: _Block) -> None:
        """Take every pair whose exact cost may be among a query's k lowest."""
        worst_r = self._nearest.worst(rows)
        passed_rn = costs_rn <= self._sketch_products.bounds(rows, worst_r, block)
        near, columns = _true_places(passed_rn)
        if self._lists.sketches is not None and len(near) > CROWD * passed_rn.numel():
            whole = self._full_products.block(self._lists.read(positions_n))
            passed_rn &= self._full_products.costs(rows, whole) <= self._full_products.bounds(rows, worst_r, whole)
            near, columns = _true_places(passed_rn)
        self._add(rows[near], positions_n, columns)

    def _add(self, rows: np.ndarray, positions_n: np.ndarray, columns: np.ndarray) -> None:
        """Score pairs of queries (rising) and members of a block exactly, and keep the lowest."""
        if not len(rows):
            return
        wanted = np.zeros(len(positions_n), dtype=bool)
        wanted[columns] = True
        vectors_wD, place_of = self._lists.read(positions_n[wanted]), np.cumsum(wanted) - 1
        costs = self._metric.pair_costs(self._queries_mD, rows, vectors_wD, place_of[columns])
        with self._lock:
            self._nearest.add(rows, costs, positions_n[columns])


@dataclass(frozen=True)
class _Block:
    """Vectors on the device."""

    vectors: torch.Tensor
    """float32 [n,S]."""
    offsets: torch.Tensor
    """float32 [n]: |x|^2, or zeros for the dot product."""
    most: float
    """The largest |x|^2."""


class _Products:
    """Costs of pairs less |q|^2 by one matrix product, |x|^2 - 2qx or -qx, and the bounds to compare them with."""

    def __init__(self, queries_mS: np.ndarray, dim: int, is_l2: bool, device: torch.device):
        self._queries_mS, self._is_l2, self._device = torch.from_numpy(queries_mS).to(device), is_l2, device
        self._squares_m = np.einsum("ms,ms->m", queries_mS, queries_mS, dtype=np.float64)
        self._rounding = 2 * rounding(dim)

    def block(self, vectors_nS: np.ndarray) -> _Block:
        squares_n = np.einsum("ns,ns->n", vectors_nS, vectors_nS)
        offsets_n = squares_n if self._is_l2 else np.zeros_like(squares_n)
        vectors, offsets = (torch.from_numpy(array).to(self._device) for array in (vectors_nS, offsets_n))
        return _Block(vectors, offsets, float(squares_n.max()))

    def costs(self, rows: np.ndarray, block: _Block) -> torch.Tensor:
        """Return float32 [r,n]."""
        return torch.addmm(block.offsets, self._queries_mS[rows], block.vectors.T, alpha=-2 if self._is_l2 else -1)

    def bounds(self, rows: np.ndarray, worst_r: np.ndarray, block: _Block) -> torch.Tensor:
        """Return float32 [r,1]: no pair beyond it has an exact cost of at most `worst_r`.

        It allows for the rounding of sketches, products (in float32, not TF32) and exact costs, each a small part of
        (|q| + |x|)^2, and for what vectors of almost no length lose below float32's range.
        """
        squares_r = self._squares_m[rows]
        bounds_r = worst_r + self._rounding * np.square(np.sqrt(squares_r) + block.most**0.5) + UNDERFLOW
        bounds_r = bounds_r - squares_r if self._is_l2 else bounds_r
        highest = np.finfo(np.float32).max  # below the infinity of pairs that were taken
        return torch.from_numpy(np.minimum(bounds_r, highest).astype(np.float32)).to(self._device)[:, None]


def _true_places(passed_rn: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns, int64, of what is true, row by row (NumPy skips what is false faster than torch)."""
    if passed_rn.is_cpu:
        rows, columns = np.divmod(np.flatnonzero(passed_rn.numpy()), passed_rn.shape[1])
        return rows, columns
    rows, columns = passed_rn.nonzero().T.cpu().numpy()
    return rows, columns


def visit_probes(probes_mP: np.ndarray) -> list[Visit]:
    """Visit the lists int64 [m,P] that each query probes, its nearest before all others; -1 for none."""
    others = probes_mP.shape[1] - 1
    nearest = list(_by_list(probes_mP[:, :1]))
    if not others:
        return nearest
    return nearest + [(which, members // others) for which, members in _by_list(probes_mP[:, 1:])]


def visit_all(num_queries: int, lists: VectorLists) -> list[Visit]:
    """Let every query search every list."""
    everyone = np.arange(num_queries)
    return [(which, everyone) for which in range(len(lists))]


def _by_list(lists: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (list, flat indices of the entries equal to it) for every list that occurs; -1 is left out."""
    flat = lists.ravel()
    order = np.argsort(flat, kind="stable")
    values, begins = np.unique(flat[order], return_index=True)
    for value, members in zip(values.tolist(), np.split(order, begins)[1:], strict=True):
        if value >= 0:
            yield value, members
