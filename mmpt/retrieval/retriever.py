"""The nearest-neighbour index of the epoch refresh.

`faiss_index` or `gpu_search` finds neighbours. Their matrix products round differently with another
number of threads or another device. They therefore find a few neighbours more than are wanted. The
exact distances of these decide which are returned and in which order, equal ones by position.

Legend: N vectors, m queries, k neighbours, D hidden size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.registry import Registry
from mmpt.retrieval import gpu_search
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

MIN_EXAMPLES_PER_CENTROID = 39
"""With fewer training vectors per list, lists are poor (and faiss warns)."""
PQ_BYTES = 32
"""Size of a vector's code with `db_type: pq`."""
PQ_MIN_EXAMPLES = 256
"""Values of a byte of a code, each of which needs a training vector."""
SPARE = 8
"""Neighbours that are searched beyond the wanted ones."""
BLOCK_ROWS = 1 << 16
"""Vectors converted to float32 at a time."""


class VectorRetriever:
    """Vectors by id, and a search of their nearest neighbours.

    Args:
        hidden_size: D.
        cent: lists of the inverted file; fewer are made if there are too few vectors to train them.
        db_type: `flatl2` (inverted file, squared L2 distance), `innerproduct` (inverted file, dot
            product), `pq` (inverted file of 32-byte codes, squared L2 distance) or `exact` (no
            inverted file: every query is compared with every vector; squared L2 distance).
        examples_per_cent_to_train: training vectors per list.
        nprobe: lists searched per query, or `auto`: the fewest with which every query finds its k
            neighbours, and all of them find the share `recall` of their true neighbours.
        seed: of the choice of training vectors, of k-means and of the sample behind `auto`.
        recall: above 0 and at most 1; what `auto` reaches; 1 searches all lists. With `pq`, the
            true neighbours are the nearest by the codes.
        device: None for the CPU. On a GPU, `nprobe: auto` compares every query with every vector,
            except with `pq`.

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
        *,
        device: torch.device | None = None,
    ):
        if db_type == "pq" and hidden_size % PQ_BYTES:
            problem = f"needs a hidden size divisible by {PQ_BYTES}, but it is {hidden_size}"
            raise ConfigError("retrieval", [f"`db_type: pq` {problem}; use `flatl2`."])
        self.hidden_size = hidden_size
        self.cent = cent
        self.db_type = db_type
        self.examples_per_cent_to_train = examples_per_cent_to_train
        self.nprobe = nprobe
        self.seed = seed
        self.recall = recall
        self.device = device or torch.device("cpu")
        self.ids: list[str] = []
        self.index: Any = None
        """A `faiss.IndexIVF`; None before `finalize_training`, and where all pairs are compared."""
        self.last_nprobe = 0
        """Lists searched per query by the last search; 0 if all pairs were compared."""
        self.last_recall: float | None = None
        """Recall of the last search on a sample of its queries; None if it was not measured."""
        self._known: set[str] = set()
        self._parts: list[np.ndarray] = []
        self._vectors_ND = np.zeros((0, hidden_size), np.float32)
        self._is_l2 = db_type != "innerproduct"

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_exact(self) -> bool:
        """True if every query is compared with every vector."""
        return self.db_type == "exact" or (
            self.device.type != "cpu" and self.nprobe == "auto" and self.db_type != "pq"
        )

    @property
    def num_lists(self) -> int:
        """Lists of the inverted file; 0 where all pairs are compared."""
        return 0 if self.index is None else self.index.nlist

    def add(self, vectors_nD: np.ndarray, ids: Sequence[str]) -> None:
        """Adds vectors under their ids; an id that is there already is ignored.

        Args:
            vectors_nD: float32 or float16, finite. They are kept, not copied: do not change them.
        """
        assert not len(self._vectors_ND), "vectors are added before finalize_training"
        assert vectors_nD.shape == (len(ids), self.hidden_size)
        assert vectors_nD.dtype in (np.float32, np.float16), f"{vectors_nD.dtype}"
        fresh = []
        for row, name in enumerate(ids):
            if name not in self._known:
                self._known.add(name)
                self.ids.append(name)
                fresh.append(row)
        if fresh:
            self._parts.append(vectors_nD if len(fresh) == len(ids) else vectors_nD[fresh])

    def finalize_training(self, centroids_LD: np.ndarray | None = None) -> None:
        """Trains the lists on a seeded random choice of the vectors, and adds all vectors to them.

        Args:
            centroids_LD: float32; use these instead of training.

        Raises:
            DataError: no vectors, or too few for `pq`.
        """
        if not self.ids:
            raise DataError("there are no vectors to search: no video was embedded.")
        self._vectors_ND = self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts)
        self._parts = []
        if self.is_exact:
            return
        from mmpt.retrieval import faiss_index  # deferred: loads faiss

        begin = time.monotonic()
        num_lists = min(self.cent, max(1, len(self) // MIN_EXAMPLES_PER_CENTROID))
        if centroids_LD is not None:
            num_lists = len(centroids_LD)
        if num_lists < self.cent:
            logger.warning(
                "%d vectors are too few to train %d lists (%d vectors each); training %d lists",
                len(self),
                self.cent,
                MIN_EXAMPLES_PER_CENTROID,
                num_lists,
            )
        training_nD = self._training_vectors(num_lists)
        # float16 vectors are stored as they are, in half the memory.
        plain = "SQfp16" if self._vectors_ND.dtype == np.float16 else "Flat"
        self.index = faiss_index.train_index(
            training_nD,
            num_lists,
            f"PQ{PQ_BYTES}" if self.db_type == "pq" else plain,
            is_l2=self._is_l2,
            seed=self.seed,
            centroids_LD=centroids_LD,
        )
        trained = time.monotonic()
        blocks = progress(
            self._float32_blocks(), len(self), "vectors indexed", logger, unit=BLOCK_ROWS
        )
        faiss_index.fill_index(self.index, blocks)
        logger.info(
            "index of %d vectors: %d lists, trained in %.1f s, filled in %.1f s",
            len(self),
            num_lists,
            trained - begin,
            time.monotonic() - trained,
        )

    def search(self, queries_mD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k nearest vectors of every query.

        Args:
            queries_mD: float32 or float16.
            k: neighbours wanted.

        Returns:
            positions int64 [m,k] into `ids`, nearest first, equally near ones by position, -1 where
            fewer were found; float32 [m,k]: squared L2 distances (infinite where the position is
            -1) or dot products (minus infinity there).
        """
        queries_mD = np.require(queries_mD, np.float32, ["C", "W"])  # torch wants them writable
        positions_mk = np.full((len(queries_mD), k), -1, dtype=np.int64)
        scores_mk = np.full((len(queries_mD), k), np.inf if self._is_l2 else -np.inf, np.float32)
        wanted = min(k, len(self))
        if len(queries_mD):
            begin = time.monotonic()
            found = self._search(queries_mD, wanted)
            positions_mk[:, :wanted], scores_mk[:, :wanted] = self._order(
                queries_mD, *found, wanted
            )
            said = "all pairs"
            if self.num_lists:
                said = f"{self.last_nprobe} of {self.num_lists} lists"
            if self.last_recall is not None:
                said += f", recall@{k} {self.last_recall:.3f} on a sample"
            seconds = time.monotonic() - begin
            logger.info("neighbours of %d queries: %s, %.1f s", len(queries_mD), said, seconds)
        return positions_mk, scores_mk

    def _training_vectors(self, num_lists: int) -> np.ndarray:
        """Returns a seeded random choice of the vectors, float32."""
        chosen = np.random.default_rng(self.seed).permutation(len(self))
        chosen = np.sort(chosen[: num_lists * self.examples_per_cent_to_train])
        if self.db_type == "pq" and len(chosen) < PQ_MIN_EXAMPLES:
            raise DataError(
                f"`db_type: pq` trains on at least {PQ_MIN_EXAMPLES} vectors, but on {len(chosen)};"
                " use `flatl2`."
            )
        return as_float32(self._vectors_ND[chosen])

    def _search(self, queries_mD: np.ndarray, wanted: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions and scores of the wanted neighbours and a few more."""
        k = min(wanted + SPARE, len(self))
        self.last_nprobe, self.last_recall = 0, None
        if self.is_exact and self.device.type != "cpu":
            return gpu_search.search_all(
                queries_mD, self._vectors_ND, k, is_l2=self._is_l2, device=self.device
            )
        from mmpt.retrieval import faiss_index  # deferred: loads faiss

        if self.is_exact:
            return faiss_index.search_all(queries_mD, self._float32_blocks(), k, is_l2=self._is_l2)
        assert self.index is not None, "finalize_training comes before search"
        if isinstance(self.nprobe, int):
            self.last_nprobe = min(self.nprobe, self.num_lists)
        elif self.recall == 1:
            self.last_nprobe = self.num_lists
        else:
            self.last_nprobe, self.last_recall = faiss_index.fewest_probes(
                self.index, queries_mD, wanted, self.recall, self.seed
            )
        return faiss_index.search_lists(self.index, queries_mD, k, self.last_nprobe)

    def _order(
        self, queries_mD: np.ndarray, positions_mk: np.ndarray, scores_mk: np.ndarray, wanted: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the wanted neighbours by exact score, equal ones by position.

        With `pq`, the scores of the codes decide.
        """
        if self.db_type != "pq":
            scores_mk = self._exact_scores(queries_mD, positions_mk)
        costs_mk = scores_mk if self._is_l2 else -scores_mk
        costs_mk[positions_mk < 0] = np.inf
        order_mk = np.lexsort((positions_mk, costs_mk), axis=1)[:, :wanted]
        costs_mk = np.take_along_axis(costs_mk, order_mk, axis=1)
        positions_mk = np.take_along_axis(positions_mk, order_mk, axis=1)
        return positions_mk, costs_mk if self._is_l2 else -costs_mk

    def _exact_scores(self, queries_mD: np.ndarray, positions_mk: np.ndarray) -> np.ndarray:
        """Returns the scores of these pairs, float32 [m,k], without a matrix product."""
        scores_mk = np.empty(positions_mk.shape, dtype=np.float32)
        for row, query_D in enumerate(queries_mD):
            near_kD = as_float32(self._vectors_ND[positions_mk[row]])
            if self._is_l2:
                near_kD -= query_D
                scores_mk[row] = np.einsum("kd,kd->k", near_kD, near_kD)
            else:
                scores_mk[row] = np.einsum("kd,d->k", near_kD, query_D)
        return scores_mk

    def _float32_blocks(self) -> Iterator[np.ndarray]:
        for begin in range(0, len(self), BLOCK_ROWS):
            yield as_float32(self._vectors_ND[begin : begin + BLOCK_ROWS])


RETRIEVERS: Registry[VectorRetriever] = Registry("retriever", VectorRetriever, "mmpt.retrieval")
RETRIEVERS.register(VectorRetriever)


def as_float32(vectors: np.ndarray) -> np.ndarray:
    """Returns float32; torch converts float16 several times faster than NumPy."""
    writable = np.require(vectors, requirements=["C", "W"])  # else torch warns
    return torch.from_numpy(writable).float().numpy()
