"""Nearest neighbours with faiss: an inverted file (IVF), searched for all queries at once.

An inverted file groups the vectors into lists, one for each centroid of k-means. A query is
compared only with the vectors in the lists of its nearest centroids, which are called its probes.
With fewer probes a search is faster, but misses more of the true neighbours. `fewest_probes`
estimates on a sample how many probes are needed.

Only this module imports faiss. `retriever.py` imports this module when it is used.

Legend: N vectors, n training vectors, m queries, s sampled queries, L lists, P probes,
k neighbours, D hidden size.
"""

import contextlib
import io
from typing import Any

import faiss
import numpy as np
from faiss.contrib.big_batch_search import big_batch_search
from faiss.contrib.inspect_tools import get_invlist_sizes

MAX_DISTANCES = 1 << 27
"""Largest number of distances in memory, for a block of queries to all vectors of one list
(512 MB)."""
SAMPLE_SIZE = 256
"""Number of queries on which the recall is measured."""
CONFIDENCE = 1.645
"""Number of standard errors by which the recall of the sample must exceed the wanted one. The
recall of all queries is then high enough in 95 % of all cases (the one-sided 95 % quantile of the
normal distribution)."""


def train_index(
    training_nD: np.ndarray,
    num_lists: int,
    storage: str,
    *,
    is_l2: bool,
    seed: int,
    centroids_LD: np.ndarray | None = None,
) -> Any:
    """Returns an empty `faiss.IndexIVF` with trained lists.

    Args:
        training_nD: float32. k-means uses all of them.
        num_lists: L.
        storage: format of the vectors in the lists, as for `faiss.index_factory`: `Flat`
            (float32), `SQfp16` (float16) or `PQ32` (codes of 32 bytes).
        is_l2: compare by squared L2 distance, else by dot product.
        seed: seed of k-means.
        centroids_LD: float32. If given, they are used instead of training.
    """
    metric = faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.index_factory(training_nD.shape[1], f"IVF{num_lists},{storage}", metric)
    clusterings = [index.cp]
    if storage == "SQfp16":
        # The vectors are float16, so they are stored exactly. Differences to centroids are not.
        index.by_residual = False
    if storage.startswith("PQ"):
        # This training takes minutes, and serves a filter that is not used here.
        index.do_polysemous_training = False
        clusterings.append(index.pq.cp)
    for clustering in clusterings:
        clustering.seed = 1 + seed
        clustering.min_points_per_centroid = 1  # suppresses a warning
        clustering.max_points_per_centroid = len(training_nD)  # no subsampling
    if centroids_LD is not None:
        index.quantizer.add(centroids_LD)
    index.train(training_nD)
    return index


def list_of_positions(index: Any) -> np.ndarray:
    """Returns the number of the list that holds each vector, int64 [N]."""
    # An entry of the direct map is 64 bits: the list in the upper half, the offset in the lower.
    return faiss.vector_to_array(index.direct_map.array) >> 32


def search_lists(
    index: Any, queries_mD: np.ndarray, k: int, num_probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest vectors of every query in its nearest lists.

    Args:
        queries_mD: float32.
        num_probes: P, the number of lists that a query is compared with.
    Returns:
        Positions, int64 [m, k], nearest first, -1 where the lists hold fewer than k vectors; and
        float32 [m, k], squared L2 distances or dot products.
    """
    # `big_batch_search` reads each list once and compares it with all queries that probe it, in
    # one matrix product. `index.search` would read the list again for every query.
    index.nprobe = num_probes
    positions_mk = np.empty((len(queries_mD), k), dtype=np.int64)
    scores_mk = np.empty((len(queries_mD), k), dtype=np.float32)
    longest_list = int(get_invlist_sizes(index.invlists).max())
    num_rows = max(1, MAX_DISTANCES // longest_list)
    for begin in range(0, len(queries_mD), num_rows):
        rows = slice(begin, begin + num_rows)
        queries = queries_mD[rows]
        if len(queries) * num_probes <= index.nlist + 1:  # too few for big_batch_search
            scores_mk[rows], positions_mk[rows] = index.search(queries, k)
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # it prints progress even with verbose=0
            scores_mk[rows], positions_mk[rows] = big_batch_search(
                index, queries, k, method="pairwise_distances"
            )
    return positions_mk, scores_mk


def fewest_probes(
    index: Any, queries_mD: np.ndarray, k: int, recall: float, seed: int
) -> tuple[int, float]:
    """Returns the smallest number of probes that finds enough neighbours, and its recall.

    It is enough if the lists of every query hold at least k vectors, and if all queries together
    find the share `recall` of their k true neighbours. The recall is measured on a sample.

    Args:
        queries_mD: float32.
        k: at most N.
        recall: above 0 and at most 1.
        seed: seed of the choice of the sample.
    Returns:
        The number of probes, and the recall of the sample with it.
    Source: Cochran, Sampling Techniques (1977), 2.6: standard error of the mean of a sample from
        a finite population.
    """
    # The recall need not be measured by searching with each number of probes. One search of all
    # lists gives the true neighbours of a sample of the queries. The list of a neighbour is, say,
    # the third nearest one of the query; then the neighbour is found with three or more probes.
    # So the ranks of these lists give the recall for every number of probes.

    # Find the true neighbours of the sample.
    num_queries, num_lists = len(queries_mD), index.nlist
    shuffled = np.random.default_rng(seed).permutation(num_queries)
    sample_sD = queries_mD[np.sort(shuffled[:SAMPLE_SIZE])]
    true_sk, _ = search_lists(index, sample_sD, k, num_lists)

    # Look up the rank of each neighbour's list. `argsort` inverts a permutation.
    _, order_sL = index.quantizer.search(sample_sD, num_lists)
    rank_sL = np.argsort(order_sL, axis=1)
    list_sk = list_of_positions(index)[true_sk]
    needed_sk = np.take_along_axis(rank_sL, list_sk, axis=1) + 1

    # Choose the fewest probes whose recall is high enough, with a margin for the error of the
    # sample. The error is 0 if the sample contains all queries.
    for num_probes in range(1, num_lists + 1):
        recall_s = (needed_sk <= num_probes).mean(axis=1)
        error = recall_s.std() * np.sqrt(1 / len(sample_sD) - 1 / num_queries)
        if recall_s.mean() - CONFIDENCE * error >= recall:
            break

    # Increase the number until the nearest lists of every query hold at least k vectors. It is not
    # known how many lists that takes, so twice as many are looked up each time.
    sizes_L = get_invlist_sizes(index.invlists)
    num_ordered = num_probes
    while True:
        _, probes_mP = index.quantizer.search(queries_mD, num_ordered)
        is_short_mP = sizes_L[probes_mP].cumsum(axis=1) < k
        if not is_short_mP[:, -1].any():  # at the latest with all lists, which hold N >= k vectors
            break
        num_ordered = min(2 * num_ordered, num_lists)
    most_short = int(is_short_mP.sum(axis=1).max())
    num_probes = max(num_probes, most_short + 1)
    return num_probes, float((needed_sk <= num_probes).mean())
