"""Nearest neighbours with faiss: an inverted file (IVF), searched for all queries at once.

An inverted file groups the vectors by their nearest centroid of k-means, one list per centroid. A
query reads the lists with the nearest centroids only: its probes. Fewer probes are faster and miss
more of the true neighbours. `fewest_probes` measures on a sample how many are needed.

Only this module imports faiss, and only `retriever.py` imports this module, when it is used.

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
"""Distances between queries and the vectors of a list that are in memory at a time (512 MB)."""
SAMPLE = 256
"""Queries on which the recall is measured."""
CONFIDENCE = 1.645
"""Standard errors by which the sample's recall must exceed the wanted one. The recall of all
queries is then high enough in 19 of 20 cases."""


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
        training_nD: float32; k-means uses all of them.
        storage: how the lists keep vectors, as in `faiss.index_factory`: `Flat` (float32), `SQfp16`
            (float16) or `PQ32` (codes of 32 bytes).
        is_l2: compare by squared L2 distance, else by dot product.
        centroids_LD: float32; use these instead of training.
    """
    metric = faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT
    index: Any = faiss.index_factory(training_nD.shape[1], f"IVF{num_lists},{storage}", metric)
    clusterings = [index.cp]
    if storage == "SQfp16":
        # float16 vectors are stored without loss, their residuals would not be.
        index.by_residual = False
    if storage.startswith("PQ"):
        index.do_polysemous_training = False  # for a filter that is not used; takes minutes
        clusterings.append(index.pq.cp)
    for clustering in clusterings:
        clustering.seed = 1 + seed
        clustering.min_points_per_centroid = 1  # no warning
        clustering.max_points_per_centroid = len(training_nD)  # no subsampling
    if centroids_LD is not None:
        index.quantizer.add(centroids_LD)
    index.train(training_nD)
    return index


def list_of_positions(index: Any) -> np.ndarray:
    """Returns the list that holds each position, int64 [N]."""
    return faiss.vector_to_array(index.direct_map.array) >> 32  # the lower half is the place in it


def search_lists(
    index: Any, queries_mD: np.ndarray, k: int, num_probes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k nearest vectors of every query in its nearest lists.

    `big_batch_search` reads each list once and compares it with all queries that probe it, in one
    matrix product. `index.search` would read the list again for every query.

    Args:
        queries_mD: float32.
        num_probes: P.
    Returns:
        positions int64 [m,k], nearest first, -1 where the lists hold fewer than k vectors;
        float32 [m,k]: squared L2 distances or dot products.
    """
    index.nprobe = num_probes
    positions_mk = np.empty((len(queries_mD), k), dtype=np.int64)
    scores_mk = np.empty((len(queries_mD), k), dtype=np.float32)
    rows = max(1, MAX_DISTANCES // int(get_invlist_sizes(index.invlists).max()))
    for begin in range(0, len(queries_mD), rows):
        part = slice(begin, begin + rows)
        if len(queries_mD[part]) * num_probes <= index.nlist + 1:  # too few for big_batch_search
            scores_mk[part], positions_mk[part] = index.search(queries_mD[part], k)
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # it prints progress, also with verbose=0
            scores_mk[part], positions_mk[part] = big_batch_search(
                index, queries_mD[part], k, method="pairwise_distances"
            )
    return positions_mk, scores_mk


def fewest_probes(
    index: Any, queries_mD: np.ndarray, k: int, recall: float, seed: int
) -> tuple[int, float]:
    """Returns the fewest probes that find enough neighbours, and the sample's recall with them.

    Enough means: every query meets at least k vectors, and all queries together meet the share
    `recall` of their k true neighbours. A search of all lists finds the true neighbours of a
    sample. The lists that hold these give the recall for every number of probes, without more
    searches.

    Args:
        queries_mD: float32.
        k: at most N.
        recall: above 0 and at most 1.
        seed: of the choice of the sample.
    Source: Cochran, Sampling Techniques (1977), 2.6: standard error of a sample from m queries.
    """
    # The true neighbours of a sample of the queries.
    num_queries, num_lists = len(queries_mD), index.nlist
    sample_s = np.sort(np.random.default_rng(seed).permutation(num_queries)[:SAMPLE])
    sample_sD = queries_mD[sample_s]
    true_sk, _ = search_lists(index, sample_sD, k, num_lists)

    # The number of probes with which each of them is found: the rank of its list for the query.
    _, order_sL = index.quantizer.search(sample_sD, num_lists)
    rank_sL = np.argsort(order_sL, axis=1)  # the inverse permutation
    needed_sk = np.take_along_axis(rank_sL, list_of_positions(index)[true_sk], axis=1) + 1

    # The fewest probes whose recall is high enough. The error is 0 if the sample has all queries.
    for num_probes in range(1, num_lists + 1):
        recall_s = (needed_sk <= num_probes).mean(axis=1)
        error = recall_s.std() * np.sqrt(1 / len(sample_s) - 1 / num_queries)
        if recall_s.mean() - CONFIDENCE * error >= recall:
            break

    # More of them, if a query meets fewer than k vectors in its nearest lists.
    sizes_L = get_invlist_sizes(index.invlists)
    num_ordered = num_probes
    while True:
        _, probes_mP = index.quantizer.search(queries_mD, num_ordered)
        is_short_mP = sizes_L[probes_mP].cumsum(axis=1) < k
        if not is_short_mP[:, -1].any():  # true at the latest when all lists are ordered
            break
        num_ordered = min(2 * num_ordered, num_lists)
    num_probes = max(num_probes, int(is_short_mP.sum(axis=1).max()) + 1)
    return num_probes, float((needed_sk <= num_probes).mean())
