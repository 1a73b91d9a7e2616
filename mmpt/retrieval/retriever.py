"""The nearest-neighbour index of the epoch refresh.

Results do not depend on the number of threads or the device. `faiss_index` or `all_pairs` finds
candidates, a few more than are wanted, because their matrix products round differently on other
devices. The exact scores of the candidates, computed pair by pair, then decide which ones are
returned and in which order. If two scores are equal, the lower position is first.

Legend: N vectors, m queries, k neighbours, D hidden size.
"""

from typing import Any

import numpy as np
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.registry import Registry
from mmpt.retrieval.all_pairs import Neighbours, search_all
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)
CPU = torch.device("cpu")

MIN_EXAMPLES_PER_CENTROID = 39
"""Smallest number of training vectors per list. With fewer, k-means is poor, and faiss warns."""
PQ_BYTES = 32
"""Size of a vector's code with `db_type: pq`."""
PQ_MIN_EXAMPLES = 256
"""Smallest number of training vectors with `db_type: pq`: one for each value of a code's byte."""
EXTRA_NEIGHBOURS = 8
"""Number of candidates in addition to the wanted neighbours."""
BLOCK_ROWS = 1 << 16
"""Number of vectors that are converted to float32 at a time."""


class VectorRetriever:
    """Vectors, and the search for their nearest neighbours.

    Usage: `add` all vectors, `finalize_training`, then `search`. A neighbour is given by its
    position in the order in which the vectors were added.

    Args:
        hidden_size: D.
        cent: number of lists of the inverted file. It is reduced if there are too few vectors to
            train so many.
        db_type: `flatl2` (inverted file, squared L2 distance), `innerproduct` (inverted file, dot
            product), `pq` (inverted file of 32-byte codes, squared L2 distance) or `exact` (no
            inverted file: every query is compared with every vector; squared L2 distance).
        examples_per_cent_to_train: training vectors per list.
        nprobe: number of lists searched per query. `auto`: the smallest number with which every
            query finds k neighbours, and all queries together find the share `recall` of their
            true neighbours.
        seed: seed of the choice of training vectors, of k-means, and of the sample that `auto`
            measures the recall on.
        recall: the recall that `auto` reaches, above 0 and at most 1. With 1 all lists are
            searched. With `pq`, the true neighbours are the nearest ones by their codes.
        device: on a GPU, `nprobe: auto` compares every query with every vector, except with `pq`.
        max_distances: largest number of distances in memory at a time (512 MB).

    Raises:
        ConfigError: `pq` cannot split vectors of this size.
    """

    def __init__(
        self,
        hidden_size: int,
        cent: int,
        db_type: str = "flatl2",
        examples_per_cent_to_train: int = 48,
        nprobe: int | str = "auto",
        seed: int = 0,
        recall: float = 0.95,
        device: torch.device = CPU,
        max_distances: int = 1 << 27,
    ):
        if db_type == "pq" and hidden_size % PQ_BYTES:
            problem = (
                f"`db_type: pq` needs a hidden size divisible by {PQ_BYTES}, but it is "
                f"{hidden_size}; use `flatl2`."
            )
            raise ConfigError("retrieval", [problem])
        self.hidden_size = hidden_size
        self.cent = cent
        self.db_type = db_type
        self.examples_per_cent_to_train = examples_per_cent_to_train
        self.nprobe = nprobe
        self.seed = seed
        self.recall = recall
        self.device = device
        self.max_distances = max_distances
        self.index: Any = None
        """A `faiss.IndexIVF`. None before `finalize_training`, and if all pairs are compared."""
        self.last_nprobe = 0
        """Number of lists per query in the last search. 0 if all pairs were compared."""
        self.last_recall: float | None = None
        """Recall of the last search on a sample of its queries. None if it was not measured."""
        self._is_l2 = db_type != "innerproduct"
        self._added: list[np.ndarray] = []
        """Vectors of each call of `add`."""
        self._num_vectors = 0

    def __len__(self) -> int:
        return self._num_vectors

    @property
    def is_exact(self) -> bool:
        """True if every query is compared with every vector."""
        if self.db_type == "exact":
            return True
        if self.db_type == "pq" or self.nprobe != "auto":
            return False
        return self.device.type != "cpu"

    @property
    def num_lists(self) -> int:
        """Number of lists of the inverted file. 0 if all pairs are compared."""
        if self.index is None:
            return 0
        return self.index.nlist

    def add(self, vectors_nD: np.ndarray) -> None:
        """Adds vectors.

        Args:
            vectors_nD: float32 or float16, finite. They are not copied and must not be changed.
        """
        num_vectors, size = vectors_nD.shape
        assert size == self.hidden_size
        self._added.append(vectors_nD)
        self._num_vectors += num_vectors

    def finalize_training(self, centroids_LD: np.ndarray | None = None) -> None:
        """Builds the inverted file. The lists are trained on a random choice of the vectors.

        Args:
            centroids_LD: float32. If given, they are used instead of training.

        Raises:
            DataError: there are no vectors, or too few for `pq`.
        """
        if not len(self):
            raise DataError("there are no vectors to search: no video was embedded.")
        if len(self._added) == 1:  # the usual case, in which nothing is copied
            self._vectors_ND = self._added[0]
        else:
            self._vectors_ND = np.concatenate(self._added)
        self._added = []
        if not self.is_exact:
            self._build_index(centroids_LD)

    def _build_index(self, centroids_LD: np.ndarray | None) -> None:
        """Trains the lists of the inverted file, then adds all vectors."""
        from mmpt.retrieval import faiss_index  # deferred: loads faiss

        # Choose the number of lists and the training vectors.
        num_vectors = len(self)
        if centroids_LD is not None:
            num_lists = len(centroids_LD)
        else:
            max_lists = max(1, num_vectors // MIN_EXAMPLES_PER_CENTROID)
            num_lists = min(self.cent, max_lists)
        if num_lists < self.cent:
            logger.warning(
                f"{num_vectors} vectors are too few to train {self.cent} lists "
                f"({MIN_EXAMPLES_PER_CENTROID} vectors each); training {num_lists} lists"
            )
        rng = np.random.default_rng(self.seed)
        shuffled = rng.permutation(num_vectors)
        max_examples = num_lists * self.examples_per_cent_to_train
        chosen = np.sort(shuffled[:max_examples])
        num_examples = len(chosen)
        if self.db_type == "pq" and num_examples < PQ_MIN_EXAMPLES:
            raise DataError(
                f"`db_type: pq` trains on at least {PQ_MIN_EXAMPLES} vectors, but on "
                f"{num_examples}; use `flatl2`."
            )

        # float16 vectors are stored in float16, in half the memory.
        if self.db_type == "pq":
            storage = f"PQ{PQ_BYTES}"
        elif self._vectors_ND.dtype == np.float16:
            storage = "SQfp16"
        else:
            storage = "Flat"
        training_nD = as_float32(self._vectors_ND[chosen])
        self.index = faiss_index.train_index(
            training_nD,
            num_lists,
            storage,
            is_l2=self._is_l2,
            seed=self.seed,
            centroids_LD=centroids_LD,
        )
        begins = range(0, num_vectors, BLOCK_ROWS)
        for begin in progress(
            begins, num_vectors, "vectors indexed", logger, unit=BLOCK_ROWS
        ):
            end = begin + BLOCK_ROWS
            block_nD = as_float32(self._vectors_ND[begin:end])
            self.index.add(block_nD)
        self.index.make_direct_map()  # for `list_of_positions`
        logger.info("index of %d vectors: %d lists", num_vectors, num_lists)

    def search(self, queries_mD: np.ndarray, k: int) -> Neighbours:
        """Returns the k nearest vectors of every query.

        They are ordered by exact score, and by position if scores are equal. With `pq`, they are
        ordered by the scores of the codes.

        Args:
            queries_mD: float32 or float16, at least one.
            k: number of neighbours.

        Returns:
            Positions and scores. Where fewer neighbours were found, the position is -1,
            and the distance is infinite, or the dot product minus infinity.
        """
        # torch needs them writable.
        queries_mD = np.require(queries_mD, np.float32, ["C", "W"])
        wanted = min(k, len(self))
        positions_mk, scores_mk = self._find_candidates(queries_mD, wanted)
        if self.db_type != "pq":
            scores_mk = self._exact_scores(queries_mD, positions_mk)
        costs_mk = scores_mk if self._is_l2 else -scores_mk
        nearest_mk, costs_mk = _nearest(positions_mk, costs_mk, k)
        scores_mk = costs_mk if self._is_l2 else -costs_mk

        report = "all pairs"
        if self.num_lists:
            report = f"{self.last_nprobe} of {self.num_lists} lists"
        if self.last_recall is not None:
            report += f", recall@{k} {self.last_recall:.3f} on a sample"
        logger.info("neighbours of %d queries: %s", len(queries_mD), report)
        return Neighbours(nearest_mk, scores_mk)

    def _find_candidates(self, queries_mD: np.ndarray, wanted: int) -> Neighbours:
        """Returns positions and scores of the wanted number of neighbours and a few more."""
        num_vectors = len(self)
        k = min(wanted + EXTRA_NEIGHBOURS, num_vectors)
        if self.is_exact:
            return search_all(
                queries_mD,
                self._vectors_ND,
                k,
                is_l2=self._is_l2,
                device=self.device,
                max_distances=self.max_distances,
            )
        from mmpt.retrieval import faiss_index  # deferred: loads faiss

        assert self.index is not None, "finalize_training comes before search"
        self.last_recall = None
        if isinstance(self.nprobe, int):
            self.last_nprobe = min(self.nprobe, self.num_lists)
        elif self.recall == 1:
            self.last_nprobe = self.num_lists
        else:
            self.last_nprobe, self.last_recall = faiss_index.min_probes(
                self.index, queries_mD, wanted, self.recall, self.seed
            )
        return faiss_index.search_lists(
            self.index, queries_mD, k, self.last_nprobe, self.max_distances
        )

    def _exact_scores(
        self, queries_mD: np.ndarray, positions_mk: np.ndarray
    ) -> np.ndarray:
        """Returns the scores of pairs of queries and vectors, float32 [m, k].

        Each pair is computed by itself, so the rounding does not depend on the other pairs.
        """
        scores_mk = np.empty(positions_mk.shape, dtype=np.float32)
        for row, query_D in enumerate(queries_mD):
            positions_k = positions_mk[row]
            near_kD = as_float32(self._vectors_ND[positions_k])
            if self._is_l2:
                near_kD -= query_D
                scores_mk[row] = np.einsum("kd,kd->k", near_kD, near_kD)
            else:
                scores_mk[row] = np.einsum("kd,d->k", near_kD, query_D)
        return scores_mk


RETRIEVERS: Registry[VectorRetriever] = Registry(
    "retriever", VectorRetriever, "mmpt.retrieval"
)
RETRIEVERS.register(VectorRetriever)


def _nearest(positions_mk: np.ndarray, costs_mk: np.ndarray, k: int) -> Neighbours:
    """Returns the k candidates of every query that have the lowest costs, lowest first.

    Equal costs are ordered by position. Places without a candidate, whose position is -1, come
    last, with an infinite cost. The scores of the result are costs.
    """
    is_empty_mk = positions_mk < 0
    costs_mk[is_empty_mk] = np.inf
    order_mk = np.lexsort((positions_mk, costs_mk), axis=1)
    order_mk = order_mk[:, :k]
    positions_mk = np.take_along_axis(positions_mk, order_mk, axis=1)
    costs_mk = np.take_along_axis(costs_mk, order_mk, axis=1)

    # With fewer than k candidates, fill up the columns.
    num_absent = k - order_mk.shape[1]
    padding = ((0, 0), (0, num_absent))
    positions_mk = np.pad(positions_mk, padding, constant_values=-1)
    costs_mk = np.pad(costs_mk, padding, constant_values=np.inf)
    return Neighbours(positions_mk, costs_mk)


def as_float32(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors in float32. (torch converts float16 several times faster than NumPy.)"""
    # torch warns about read-only arrays.
    writable = np.require(vectors, requirements=["C", "W"])
    return torch.from_numpy(writable).float().numpy()
