"""How many lists of an inverted file a search must probe, decided from the order in which lists would be probed.

Legend: m queries, s of them as a sample, L lists, P probes, k neighbours, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from mmpt.utils.log import get_logger

logger = get_logger(__name__)

SAMPLE = 256
"""Queries whose true neighbours are looked for, to decide the probes and to measure the recall afterwards."""
CONFIDENCE = 1.645
"""Standard errors that the sample's recall must lie above the one wanted, so that in 19 of 20 cases that of all queries
is not below it."""


class Index(Protocol):
    """What is searched list by list."""

    @property
    def sizes(self) -> np.ndarray: ...

    def list_of_positions(self) -> np.ndarray: ...

    def probe(self, queries_mD: np.ndarray, num_probes: int) -> np.ndarray: ...

    def search(self, queries_mD: np.ndarray, k: int, num_probes: int) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Sample:
    """Some queries, and what a search of all lists finds for them."""

    rows: np.ndarray
    """int64 [s], rising."""
    true_sk: np.ndarray
    """int64, positions; -1 for none."""

    @classmethod
    def draw(cls, index: Index, queries_mD: np.ndarray, k: int, seed: int) -> Sample:
        """Search all lists for a seeded choice of the queries."""
        rows = sample_rows(len(queries_mD), seed)
        return cls(rows, index.search(queries_mD[rows], k, len(index.sizes))[0])

    def decide(self, index: Index, queries_mD: np.ndarray, recall: float) -> int:
        """Return the fewest probes that give every query k neighbours, and all the share `recall` of their true ones,
        as far as the sample tells."""
        num_lists, k = len(index.sizes), self.true_sk.shape[1]
        for_full = probes_for_full(partial(index.probe, queries_mD), index.sizes, k)
        order_sL = index.probe(queries_mD[self.rows], num_lists)
        for_recall = probes_for_recall(order_sL, self.true_sk, index.list_of_positions(), recall, len(queries_mD))
        logger.info(
            "nprobe auto: %d of %d lists (full candidate lists need %d, recall %g on %d queries needs %d)",
            max(for_full, for_recall), num_lists, for_full, recall, len(self.rows), for_recall,
        )  # fmt: skip
        return max(for_full, for_recall)


def sample_rows(num_queries: int, seed: int) -> np.ndarray:
    """Return at most `SAMPLE` different rows, rising; a seeded random choice."""
    return np.sort(np.random.default_rng(seed).permutation(num_queries)[:SAMPLE])


def probes_for_full(probe: Callable[[int], np.ndarray], sizes_L: np.ndarray, k: int) -> int:
    """Return the fewest probes with which every query meets at least k vectors (L when even all hold fewer).

    Args:
        probe: P -> int64 [m,P], every query's nearest P lists, nearest first; -1 for none.
        sizes_L: vectors per list.
    """
    sizes = np.append(sizes_L, 0)  # a probe of -1 meets nothing
    num_probes = 1
    while True:
        met_mP = sizes[probe(num_probes)].cumsum(axis=1)
        if met_mP[:, -1].min() >= k or num_probes == len(sizes_L):
            return min(int((met_mP < k).sum(axis=1).max()) + 1, len(sizes_L))
        num_probes = min(2 * num_probes, len(sizes_L))


def probes_for_recall(
    probes_sL: np.ndarray, neighbours_sk: np.ndarray, list_of: np.ndarray, target: float, num_queries: int
) -> int:
    """Return the fewest probes with which queries meet at least the share `target` of their true neighbours.

    The sample must meet more, by `CONFIDENCE` standard errors of its share; none where it holds all queries.

    Args:
        probes_sL: int64, all lists in the order in which each query of a sample would probe them; -1 for none.
        neighbours_sk: int64, positions of the true neighbours; -1 for none.
        list_of: int64, the list of every position.
        num_queries: m, from which the sample was drawn.
    Source: Cochran, Sampling Techniques (1977), 6.4: the ratio estimate and its variance.
    """
    num_sampled, num_lists = probes_sL.shape
    place_of_list = np.full((num_sampled, num_lists + 1), num_lists - 1)  # the last column takes the -1s
    np.put_along_axis(place_of_list, probes_sL, np.arange(num_lists)[None, :], axis=1)
    places_sk = np.take_along_axis(place_of_list, list_of[neighbours_sk], axis=1)
    is_true = neighbours_sk >= 0
    met_sL = np.zeros((num_sampled, num_lists))
    np.add.at(met_sL, (np.nonzero(is_true)[0], places_sk[is_true]), 1)
    met_sL = met_sL.cumsum(axis=1)
    wanted_s1 = is_true.sum(axis=1, keepdims=True)
    if not wanted_s1.any():
        return 1
    share_L = met_sL.sum(axis=0) / wanted_s1.sum()
    unseen = 1 - num_sampled / num_queries
    variance_L = unseen * ((met_sL - share_L * wanted_s1) ** 2).sum(axis=0) / max(num_sampled - 1, 1) / num_sampled
    error_L = np.sqrt(variance_L) / wanted_s1.mean()
    return int(np.argmax(share_L - CONFIDENCE * error_L >= target)) + 1


def share_found(found_mk: np.ndarray, true_mk: np.ndarray) -> float:
    """Return the share of the true neighbours (positions; -1 for none) that were found, 1 when there are none."""
    total = int((true_mk >= 0).sum())
    met = sum(int(np.isin(true[true >= 0], found).sum()) for true, found in zip(true_mk, found_mk, strict=True))
    return met / total if total else 1.0
