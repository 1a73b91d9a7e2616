"""How many lists of an inverted file a search must probe, decided from the order in which lists would be probed.

Legend: m queries, s of them as a sample, L lists, P probes, k neighbours, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from mmpt.retrieval.listscan import ListStore
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

TARGET_RECALL = 0.95


def auto_probes(
    probe: Callable[[np.ndarray, int], np.ndarray],
    parts_mD: Iterable[np.ndarray],
    sample_sD: np.ndarray,
    true_sk: np.ndarray,
    store: ListStore,
) -> int:
    """Return the fewest probes that give every query k neighbours, and the sample `TARGET_RECALL` of its true ones.

    Args:
        probe: (queries [m,D], P) -> int64 [m,P], every query's nearest P lists, nearest first; -1 for none.
        parts_mD: all queries, in parts.
        sample_sD: some of them.
        true_sk: int64, positions of the sample's true k neighbours.
        store: sizes and positions of the lists.
    """
    sizes, k = store.sizes, true_sk.shape[1]
    for_full = max(probes_for_full(partial(probe, part_mD), sizes, k) for part_mD in parts_mD)
    for_recall = probes_for_recall(probe(sample_sD, len(sizes)), true_sk, store.list_of_positions(), TARGET_RECALL)
    logger.info(
        "nprobe auto: %d of %d lists (full candidate lists need %d, recall %.2f on %d queries needs %d)",
        max(for_full, for_recall), len(sizes), for_full, TARGET_RECALL, len(sample_sD), for_recall,
    )  # fmt: skip
    return max(for_full, for_recall)


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


def probes_for_recall(probes_mL: np.ndarray, neighbours_mk: np.ndarray, list_of: np.ndarray, target: float) -> int:
    """Return the fewest probes that meet at least the share `target` of the true neighbours.

    Args:
        probes_mL: int64, all lists in the order in which each query would probe them; -1 for none.
        neighbours_mk: int64, positions of the true neighbours; -1 for none.
        list_of: int64, the list of every position.
    """
    num_lists = probes_mL.shape[1]
    place_of_list = np.full((len(probes_mL), num_lists + 1), num_lists - 1)  # the last column takes the -1s
    np.put_along_axis(place_of_list, probes_mL, np.arange(num_lists)[None, :], axis=1)
    places = np.take_along_axis(place_of_list, list_of[neighbours_mk], axis=1)[neighbours_mk >= 0]
    if not len(places):
        return 1
    return int(np.sort(places)[int(np.ceil(target * len(places))) - 1]) + 1
