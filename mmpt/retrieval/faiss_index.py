"""Nearest neighbours with faiss: an inverted file (IVF), searched for all queries at once.

An inverted file groups the vectors into lists, one for each centroid of k-means. A query is
compared only with the vectors in the lists of its nearest centroids, which are called its probes.
With fewer probes a search is faster, but misses more of the true neighbours. `min_probes`
estimates on a sample how many probes are needed.

Only this module and `saved_index.py` import faiss. `retriever.py` imports this module when it is
used.

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

from mmpt.retrieval.all_pairs import Neighbours

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
    hidden_size = training_nD.shape[1]
    index: Any = faiss.index_factory(hidden_size, f"IVF{num_lists},{storage}", metric)
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
    entries = faiss.vector_to_array(index.direct_map.array)
    return entries >> 32


def search_lists(
    index: Any,
    queries_mD: np.ndarray,
    k: int,
    num_probes: int,
    max_distances: int = 1 << 27,
) -> Neighbours:
    """Returns the k nearest vectors of every query in its nearest lists.

    Args:
        queries_mD: float32.
        num_probes: P, the number of lists that a query is compared with.
        max_distances: largest number of distances in memory (512 MB), for a block of queries to
            all vectors of one list.
    """
    # `big_batch_search` reads each list once and compares it with all queries that probe it, in
    # one matrix product. `index.search` would read the list again for every query.
    index.nprobe = num_probes
    num_queries = len(queries_mD)
    shape = (num_queries, k)
    positions_mk = np.empty(shape, dtype=np.int64)
    scores_mk = np.empty(shape, dtype=np.float32)
    sizes_L = get_invlist_sizes(index.invlists)
    longest_list = int(sizes_L.max())
    num_rows = max(1, max_distances // longest_list)
    for begin in range(0, num_queries, num_rows):
        rows = slice(begin, begin + num_rows)
        queries = queries_mD[rows]
        num_comparisons = len(queries) * num_probes
        if num_comparisons <= index.nlist + 1:  # too few for big_batch_search
            scores, positions = index.search(queries, k)
        else:
            # It prints progress even with verbose=0.
            with contextlib.redirect_stdout(io.StringIO()):
                scores, positions = big_batch_search(
                    index, queries, k, method="pairwise_distances"
                )
        scores_mk[rows] = scores
        positions_mk[rows] = positions
    return Neighbours(positions_mk, scores_mk)


def min_probes(
    index: Any,
    queries_mD: np.ndarray,
    k: int,
    recall: float,
    seed: int,
    sample_size: int = 256,
) -> tuple[int, float]:
    """Returns the smallest number of probes that finds enough neighbours, and its recall.

    It is enough if the lists of every query hold at least k vectors, and if all queries together
    find the share `recall` of their k true neighbours. The recall is measured on a sample.

    Args:
        queries_mD: float32.
        k: at most N.
        recall: above 0 and at most 1.
        seed: seed of the choice of the sample.
        sample_size: s, the number of queries on which the recall is measured.
    Returns:
        The number of probes, and the recall of the sample with it.
    """
    # On a sample, measure how many probes find each true neighbour. Choose as many as the recall
    # needs, or more if a query would see fewer than k vectors with them.
    num_queries = len(queries_mD)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(num_queries)
    sample = np.sort(shuffled[:sample_size])
    sample_sD = queries_mD[sample]
    needed_sk = _needed_probes(index, sample_sD, k)
    for_recall = _min_for_recall(needed_sk, num_queries, index.nlist, recall)
    num_probes = _min_for_size(index, queries_mD, k, for_recall)
    is_found_sk = needed_sk <= num_probes
    return num_probes, float(is_found_sk.mean())


def _needed_probes(index: Any, queries_sD: np.ndarray, k: int) -> np.ndarray:
    """Returns how many probes find each of the k true neighbours of every query, int64 [s, k]."""
    # The recall need not be measured by searching with each number of probes. One search of all
    # lists gives the true neighbours of a sample of the queries. The list of a neighbour is, say,
    # the third nearest one of the query; then the neighbour is found with three or more probes.
    # So the ranks of these lists give the recall for every number of probes.
    num_lists = index.nlist
    true_sk, _ = search_lists(index, queries_sD, k, num_lists)
    list_sk = list_of_positions(index)[true_sk]
    _, order_sL = index.quantizer.search(queries_sD, num_lists)
    rank_sL = np.argsort(order_sL, axis=1)  # `argsort` inverts a permutation
    rank_sk = np.take_along_axis(rank_sL, list_sk, axis=1)
    return rank_sk + 1


def _min_for_recall(
    needed_sk: np.ndarray, num_queries: int, num_lists: int, recall: float
) -> int:
    """Returns the fewest probes whose recall is high enough, with a margin for the sample's error.

    Args:
        needed_sk: result of `_needed_probes` for a sample.
        num_queries: m, from which the sample was drawn. The error is 0 if it contains all of them.
    Source: Cochran, Sampling Techniques (1977), 2.6: standard error of the mean of a sample from
        a finite population. The standard deviation here divides by n instead of n - 1, so that a
        sample of one query has an error of 0.
    """
    num_sampled = len(needed_sk)
    variance_share = 1 / num_sampled - 1 / num_queries
    correction = np.sqrt(variance_share)
    for num_probes in range(1, num_lists):
        is_found_sk = needed_sk <= num_probes
        recall_s = is_found_sk.mean(axis=1)
        error = recall_s.std() * correction
        lower_bound = recall_s.mean() - CONFIDENCE * error
        if lower_bound >= recall:
            return num_probes
    return num_lists


def _min_for_size(index: Any, queries_mD: np.ndarray, k: int, at_least: int) -> int:
    """Returns the fewest probes, `at_least` or more, with which each query sees k vectors."""
    # It is not known in advance how many lists that takes. So each round looks up twice as many of
    # the nearest lists, until they are enough. All lists together hold N >= k vectors.
    sizes_L = get_invlist_sizes(index.invlists)
    num_ordered = at_least
    while True:
        _, probes_mP = index.quantizer.search(queries_mD, num_ordered)
        num_seen_mP = sizes_L[probes_mP].cumsum(axis=1)
        is_short_mP = num_seen_mP < k
        is_short_m = is_short_mP[:, -1]
        if not is_short_m.any():
            break
        num_ordered = min(2 * num_ordered, index.nlist)
    num_short_m = is_short_mP.sum(axis=1)
    max_short = int(num_short_m.max())
    return max(at_least, max_short + 1)
