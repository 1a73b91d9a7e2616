"""The nearest-neighbour index: faiss trains, stores and saves it; exact kinds are searched list by list in `listscan`.

Every question is asked for all centres at once. Training uses a seeded choice of vectors, and results are ordered by
(distance, position), so that the same vectors, ids and settings give the same neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval.listscan import ListStore, chunk_rows, scan_lists
from mmpt.retrieval.nprobe import auto_probes
from mmpt.utils.io import atomic_write, read_json, write_json
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

DB_TYPES = ("flatl2", "innerproduct", "pq", "exact")
MIN_EXAMPLES_PER_CENTROID = 39
"""Fewer training vectors per list than this make poor lists (and faiss warn)."""
PQ_BYTES = 32
PQ_MIN_EXAMPLES = 256
RECALL_SAMPLE = 256
EXACT_BLOCK = 4096
FORMAT = 1


class VectorRetriever:
    """Vectors by id, and their nearest neighbours."""

    def __init__(
        self,
        hidden_size: int,
        cent: int,
        db_type: str = "flatl2",
        examples_per_cent_to_train: int = 48,
        nprobe: int | str = "auto",
        seed: int = 0,
    ):
        """Make an empty index.

        Args:
            hidden_size: D.
            cent: lists of the inverted file; fewer when there are not enough vectors to train them.
            db_type: `flatl2` (IVF-Flat, squared L2), `innerproduct` (IVF-Flat, dot product), `pq` (IVF with an HNSW
                quantiser and 32-byte codes, squared L2) or `exact` (no lists, squared L2).
            examples_per_cent_to_train: training vectors per list.
            nprobe: lists searched per query; `auto`: the fewest with which every query of a search finds its k
                neighbours and the recall against all lists, on a sample of the queries, is at least 0.95.
            seed: of the choice of training vectors and of k-means.
        Raises:
            ConfigError: unknown `db_type`, bad `nprobe`, or a hidden size that `pq` cannot split.
        """
        _check_settings(hidden_size, cent, db_type, nprobe)
        self.hidden_size = hidden_size
        self.cent = cent
        self.db_type = db_type
        self.examples_per_cent_to_train = examples_per_cent_to_train
        self.nprobe = nprobe
        self.seed = seed
        self._is_l2 = db_type != "innerproduct"
        self.last_nprobe = 0  # lists searched per query by the last search
        self.index: Any = None  # faiss.Index; its stubs know only the base class
        self.ids: list[str] = []
        self._position_of: dict[str, int] = {}
        self._waiting: list[np.ndarray] = []
        self._store: ListStore | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_lists(self) -> int:
        """Lists of the finished index; blocks of 4096 vectors for `exact`."""
        return len(self._lists().positions)

    def add(self, vectors_nD: np.ndarray, ids: Sequence[str]) -> None:
        """Add float32 vectors under their ids; an id that is known already is ignored."""
        assert vectors_nD.shape == (len(ids), self.hidden_size), f"{vectors_nD.shape} for {len(ids)} ids"
        fresh = []
        for row, name in enumerate(ids):
            if name not in self._position_of:
                self._position_of[name] = len(self.ids)
                self.ids.append(name)
                fresh.append(row)
        rows_nD = np.ascontiguousarray(vectors_nD if len(fresh) == len(ids) else vectors_nD[fresh], dtype=np.float32)
        if self.index is None:
            self._waiting.append(rows_nD)
        else:
            self.index.add(rows_nD)
            self._store = None

    def finalize_training(self, centroids_LD: np.ndarray | None = None) -> None:
        """Train the lists on a seeded random choice of the vectors added so far, and store all of them.

        Args:
            centroids_LD: float32; take these instead of training (IVF-Flat only).
        Raises:
            DataError: no vectors.
        """
        if not self.ids:
            raise DataError("there are no vectors to search: no video was embedded.")
        vectors_ND = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        if centroids_LD is not None:
            assert self.db_type in ("flatl2", "innerproduct"), "only IVF-Flat is defined by its centroids"
            index = self._empty_index(len(centroids_LD))
            index.quantizer.add(np.ascontiguousarray(centroids_LD, dtype=np.float32))
            index.is_trained = True
        else:
            index = self._empty_index(self._affordable_lists(len(vectors_ND)))
        if not index.is_trained:  # `exact` needs no training
            wanted = index.nlist * self.examples_per_cent_to_train
            chosen = np.random.default_rng(self.seed).permutation(len(vectors_ND))[:wanted]
            if self.db_type == "pq" and len(chosen) < PQ_MIN_EXAMPLES:
                raise DataError(
                    f"`db_type: pq` trains on at least {PQ_MIN_EXAMPLES} vectors, but on {len(chosen)}; use `flatl2`."
                )
            index.train(vectors_ND[np.sort(chosen)])
        index.add(vectors_ND)
        self.index = index

    def search(self, queries_mD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest stored vectors of every query; the answer does not depend on the other queries,
        except that `nprobe: auto` is decided for all queries together.

        Args:
            queries_mD: float32.
            k: neighbours wanted.
        Returns:
            positions int64 [m,k] into `ids`, nearest first, ties by lower position, -1 where fewer were found;
            float32 [m,k]: squared L2 distances (infinite beside -1) or dot products (minus infinity beside -1).
        """
        queries_mD = np.ascontiguousarray(queries_mD, dtype=np.float32)
        self.last_nprobe = self._num_probes(queries_mD, k)
        positions_mk, costs_mk = self._search_all(queries_mD, self.last_nprobe, k)
        return positions_mk, costs_mk if self._is_l2 else -costs_mk

    def save(self, folder: str | Path) -> None:
        """Write `faiss_idx` and then `faiss_ids.json` into `folder`, each under a temporary name first."""
        assert self.index is not None, "finalize_training comes before save"
        with atomic_write(Path(folder) / "faiss_idx", "wb") as file:
            faiss.write_index(self.index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
        settings = {"hidden_size": self.hidden_size, "cent": self.cent, "db_type": self.db_type, "nprobe": self.nprobe}
        settings |= {"examples_per_cent_to_train": self.examples_per_cent_to_train, "seed": self.seed}
        write_json(Path(folder) / "faiss_ids.json", {"format": FORMAT, "settings": settings, "ids": self.ids})

    @classmethod
    def load(cls, folder: str | Path) -> VectorRetriever:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, of another format, or the two do not belong together.
        """
        folder = Path(folder)
        table = read_json(folder / "faiss_ids.json")
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise DataError(f"{folder / 'faiss_ids.json'}: not an id table of format {FORMAT}; build the index again.")
        retriever = cls(**table["settings"])
        try:
            retriever.index = faiss.read_index(str(folder / "faiss_idx"))
        except RuntimeError as err:
            raise DataError(f"{folder / 'faiss_idx'}: not a readable index ({err}); build it again.") from None
        retriever.ids = table["ids"]
        retriever._position_of = {name: position for position, name in enumerate(retriever.ids)}
        found, dim = retriever.index.ntotal, retriever.index.d
        if found != len(retriever.ids) or dim != retriever.hidden_size:
            raise DataError(
                f"{folder}: `faiss_ids.json` names {len(retriever.ids)} vectors of size {retriever.hidden_size}, but "
                f"`faiss_idx` holds {found} of size {dim}; build the index again."
            )
        return retriever

    def _affordable_lists(self, num_vectors: int) -> int:
        affordable = max(1, num_vectors // MIN_EXAMPLES_PER_CENTROID)
        if self.db_type != "exact" and affordable < self.cent:
            logger.warning(
                "%d vectors are too few to train %d lists; %d are made (%d vectors each).",
                num_vectors, self.cent, affordable, MIN_EXAMPLES_PER_CENTROID,
            )  # fmt: skip
        return min(self.cent, affordable)

    def _empty_index(self, num_lists: int) -> Any:
        if self.db_type == "exact":
            return faiss.IndexFlatL2(self.hidden_size)
        metric = faiss.METRIC_L2 if self._is_l2 else faiss.METRIC_INNER_PRODUCT
        kind = f"IVF{num_lists}_HNSW32,PQ{PQ_BYTES}" if self.db_type == "pq" else f"IVF{num_lists},Flat"
        index: Any = faiss.index_factory(self.hidden_size, kind, metric)
        trainers = [index.cp]
        if self.db_type == "pq":
            trainers.append(index.pq.cp)
            index.do_polysemous_training = False  # renumbers codes for a filter that is not used; takes minutes
        for trainer in trainers:  # the choice of training vectors is ours: no thinning out again, no warning
            trainer.seed = 1 + self.seed
            trainer.min_points_per_centroid = 1
            trainer.max_points_per_centroid = max(trainer.max_points_per_centroid, self.examples_per_cent_to_train)
        return index

    def _num_probes(self, queries_mD: np.ndarray, k: int) -> int:
        """Return how many lists each query searches."""
        if self.db_type == "exact" or not len(queries_mD):
            return self.num_lists
        if self.nprobe != "auto":
            return min(int(self.nprobe), self.num_lists)
        parts = (queries_mD[rows] for rows in self._chunks(len(queries_mD), self.num_lists, 1))
        chosen = np.random.default_rng(self.seed).permutation(len(queries_mD))[:RECALL_SAMPLE]
        sample_sD = queries_mD[np.sort(chosen)]
        true_sk = self._search_all(sample_sD, self.num_lists, min(k, len(self)))[0]
        return auto_probes(self._probe, parts, sample_sD, true_sk, self._lists())

    def _search_all(self, queries_mD: np.ndarray, num_probes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return positions and costs [m,k], chunk by chunk."""
        positions_mk = np.full((len(queries_mD), k), -1, dtype=np.int64)
        costs_mk = np.full((len(queries_mD), k), np.inf, dtype=np.float32)
        for rows in self._chunks(len(queries_mD), num_probes, k):
            positions_mk[rows], costs_mk[rows] = self._search_chunk(queries_mD[rows], num_probes, k)
        return positions_mk, costs_mk

    def _search_chunk(self, queries_mD: np.ndarray, num_probes: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.db_type != "pq":
            return scan_lists(queries_mD, self._probe(queries_mD, num_probes), self._lists(), k)
        self.index.nprobe = num_probes
        costs_mk, positions_mk = self.index.search(queries_mD, k)
        costs_mk[positions_mk < 0] = np.inf
        order = np.lexsort((positions_mk, costs_mk), axis=1)
        return np.take_along_axis(positions_mk, order, axis=1), np.take_along_axis(costs_mk, order, axis=1)

    def _probe(self, queries_mD: np.ndarray, num_probes: int) -> np.ndarray:
        """Return the lists to search, int64 [m,P], nearest first."""
        if self.db_type == "exact":
            return np.tile(np.arange(num_probes), (len(queries_mD), 1))
        if self.db_type == "pq":
            return self.index.quantizer.search(queries_mD, num_probes)[1]
        centroids_LD = self.index.quantizer.reconstruct_n(0, self.num_lists)
        store = ListStore.build([centroids_LD], [np.arange(self.num_lists)], self._pair_costs, is_l2=self._is_l2)
        return scan_lists(queries_mD, np.zeros((len(queries_mD), 1), np.int64), store, num_probes)[0]

    def _chunks(self, num_queries: int, num_probes: int, k: int) -> Iterator[slice]:
        """Yield slices of the queries that fit into memory together; several of them are logged as they pass."""
        step = chunk_rows(num_probes, k, self._lists())
        slices = [slice(begin, min(begin + step, num_queries)) for begin in range(0, num_queries, step)]
        return progress(slices, num_queries, "queries searched", logger, unit=step) if len(slices) > 1 else iter(slices)

    def _lists(self) -> ListStore:
        """Return views of the index's lists; `pq` has codes instead of vectors, so only its positions are there."""
        if self._store is None:
            assert self.index is not None, "finalize_training comes before search"
            vectors, positions = _flat_blocks(self.index) if self.db_type == "exact" else _inverted_lists(self.index)
            vectors = [] if self.db_type == "pq" else vectors
            self._store = ListStore.build(vectors, positions, self._pair_costs, is_l2=self._is_l2)
        return self._store

    def _pair_costs(self, queries_mD: np.ndarray, rows: np.ndarray, vectors_ND: np.ndarray, columns: np.ndarray) -> Any:
        """Return exact costs of n pairs, float32 [n], by the arithmetic of faiss' own one-by-one scan."""
        costs = np.empty(len(rows), dtype=np.float32)
        pairwise = getattr(faiss, "pairwise_indexed_L2sqr" if self._is_l2 else "pairwise_indexed_inner_product")
        arrays = [queries_mD, rows.astype(np.int64), vectors_ND, columns.astype(np.int64), costs]
        pairwise(self.hidden_size, len(rows), *map(faiss.swig_ptr, arrays))
        return costs if self._is_l2 else -costs


def _check_settings(hidden_size: int, cent: int, db_type: str, nprobe: int | str) -> None:
    problems = []
    if db_type not in DB_TYPES:
        problems.append(f"`db_type` must be one of {', '.join(DB_TYPES)}, but is `{db_type}`.")
    if db_type == "pq" and hidden_size % PQ_BYTES:
        problems.append(f"`db_type: pq` needs a hidden size divisible by {PQ_BYTES}, but it is {hidden_size}.")
    if cent < 1:
        problems.append(f"`centroids` must be at least 1, but is {cent}.")
    if nprobe != "auto" and (isinstance(nprobe, str) or nprobe < 1):
        problems.append(f"`nprobe` must be `auto` or a number of at least 1, but is `{nprobe}`.")
    if problems:
        raise ConfigError("retrieval", problems)


def _inverted_lists(index: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return views of the vectors [n_l, D] and positions [n_l] of every list of an IVF-Flat index."""
    lists = index.invlists
    vectors = [np.empty((0, index.d), np.float32)] * index.nlist
    positions = [np.empty(0, np.int64)] * index.nlist
    for which in range(index.nlist):
        if size := lists.list_size(which):
            codes = faiss.rev_swig_ptr(lists.get_codes(which), size * lists.code_size)
            vectors[which] = codes.view(np.float32).reshape(size, -1)
            positions[which] = faiss.rev_swig_ptr(lists.get_ids(which), size)
    return vectors, positions


def _flat_blocks(index: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return views of a flat index's vectors in blocks [n_l, D], and their positions [n_l]."""
    whole_ND = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    cuts = range(EXACT_BLOCK, index.ntotal, EXACT_BLOCK)
    return np.split(whole_ND, cuts), np.split(np.arange(index.ntotal), cuts)
