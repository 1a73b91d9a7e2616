"""The nearest-neighbour index: faiss trains lists (and keeps `pq` codes), and we scan them for all queries at once.

Training uses a seeded choice of vectors, and results are ordered by (distance, position), so that the same vectors,
ids and settings give the same neighbours, however queries are grouped and whatever multiplies them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval.faiss_calls import flat_index, one_thread, pair_costs, read_index, train_centroids, write_index
from mmpt.retrieval.ivf import InvertedFile, SearchSettings
from mmpt.retrieval.listscan import Metric
from mmpt.retrieval.nprobe import Sample, share_found
from mmpt.retrieval.pq import PQ_BYTES, PqIndex
from mmpt.retrieval.sketch import Sketcher
from mmpt.retrieval.threads import Workplace
from mmpt.utils.io import NPY_ERRORS, atomic_write, read_json, write_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

DB_TYPES = ("flatl2", "innerproduct", "pq", "exact")
MIN_EXAMPLES_PER_CENTROID = 39
"""Fewer training vectors per list than this make poor lists (and faiss warn)."""
FORMAT = 2
SETTINGS = ("hidden_size", "cent", "db_type", "examples_per_cent_to_train", "nprobe", "seed", "recall")


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
        recall: float = 0.95,
        *,
        device: torch.device | None = None,
        memory_bytes: int = 1 << 27,
        sketch_dir: str | Path | None = None,
    ):
        """Make an empty index.

        Args:
            hidden_size: D.
            cent: lists of the inverted file; fewer when there are not enough vectors to train them.
            db_type: `flatl2` (lists, squared L2), `innerproduct` (lists, dot product), `pq` (lists with an HNSW
                quantiser and 32-byte codes, squared L2; on the CPU only) or `exact` (no lists, squared L2).
            examples_per_cent_to_train: training vectors per list.
            nprobe: lists searched per query; `auto`: the fewest with which every query of a search finds its k
                neighbours and a sample of the queries the share `recall` of its true ones.
            seed: of the choice of training vectors, of k-means and of the sample.
            recall: what `auto` reaches (of what all lists would find); 1 searches all lists.
            device: where vectors are multiplied; None for the CPU. With `nprobe: auto` an accelerator compares every
                query with every vector instead of training lists.
            memory_bytes: bound of the products held there at a time, beside the queries and a block of vectors.
            sketch_dir: keep the sketches, which a search reads of every vector, in a nameless file there instead of in
                RAM.
        Raises:
            ConfigError: unknown `db_type`, bad `nprobe` or `recall`, or a hidden size that `pq` cannot split.
        """
        _check_settings(hidden_size, cent, db_type, nprobe, recall)
        self.hidden_size = hidden_size
        self.cent = cent
        self.db_type = db_type
        self.examples_per_cent_to_train = examples_per_cent_to_train
        self.nprobe = nprobe
        self.seed = seed
        self.recall = recall
        self.last_nprobe = 0  # lists searched per query by the last search
        self.last_recall: float | None = None  # of the last search's sample; None when it was not measured
        self.ids: list[str] = []
        self._known: set[str] = set()
        self._waiting: list[np.ndarray] = []
        self._index: InvertedFile | PqIndex | None = None
        self._is_l2 = db_type != "innerproduct"
        self._metric = Metric(self._is_l2, partial(pair_costs, is_l2=self._is_l2))
        self._workplace = Workplace(device or torch.device("cpu"), memory_bytes, one_thread)
        self._sketch_dir = Path(sketch_dir) if sketch_dir is not None else None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_lists(self) -> int:
        """Lists of the finished index; of exact search, blocks of vectors."""
        return len(self._finished().sizes)

    @property
    def inverted_file(self) -> InvertedFile:
        """The vectors by list (not for `pq`)."""
        index = self._finished()
        assert isinstance(index, InvertedFile), "`pq` has codes only"
        return index

    def add(self, vectors_nD: np.ndarray, ids: Sequence[str]) -> None:
        """Add vectors under their ids; an id that is known already is ignored.

        Args:
            vectors_nD: float32 or float16, finite, in RAM or memory-mapped. They are kept, not copied: do not change
                them.
        """
        assert self._index is None, "vectors are added before finalize_training"
        assert vectors_nD.shape == (len(ids), self.hidden_size), f"{vectors_nD.shape} for {len(ids)} ids"
        assert vectors_nD.dtype in (np.float32, np.float16), f"{vectors_nD.dtype}"
        fresh = []
        for row, name in enumerate(ids):
            if name not in self._known:
                self._known.add(name)
                self.ids.append(name)
                fresh.append(row)
        if fresh:
            self._waiting.append(vectors_nD if len(fresh) == len(ids) else vectors_nD[fresh])

    def finalize_training(self, centroids_LD: np.ndarray | None = None) -> None:
        """Train the lists on a seeded random choice of the vectors added so far, and put all of them into lists.

        Args:
            centroids_LD: float32; take these instead of training (`flatl2` and `innerproduct` only).
        Raises:
            DataError: no vectors, or too few for `pq`.
        """
        if not self.ids:
            raise DataError("there are no vectors to search: no video was embedded.")
        assert centroids_LD is None or self.db_type in ("flatl2", "innerproduct"), "no other kind has such centroids"
        num_lists = self._affordable_lists(len(self))
        if num_lists < self.cent and centroids_LD is None and not self.is_exact:
            logger.warning(
                "%d vectors are too few to train %d lists; %d are made (%d vectors each).",
                len(self), self.cent, num_lists, MIN_EXAMPLES_PER_CENTROID,
            )  # fmt: skip
        vectors_ND = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        self._index = self._encode(vectors_ND) if self.db_type == "pq" else self._fill(vectors_ND, centroids_LD)

    def search(self, queries_mD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest stored vectors of every query; the answer does not depend on the other queries,
        except that `nprobe: auto` is decided for all queries together.

        Args:
            queries_mD: float32 or float16.
            k: neighbours wanted.
        Returns:
            positions int64 [m,k] into `ids`, nearest first, ties by lower position, -1 where fewer were found;
            float32 [m,k]: squared L2 distances (infinite beside -1) or dot products (minus infinity beside -1).
        """
        queries_mD = np.require(queries_mD, np.float32, ["C", "W"])  # torch warns of what it may not write
        index, begin = self._finished(), time.monotonic()
        sample, self.last_recall, measured = None, None, ""
        is_auto = self.nprobe == "auto" or self.is_exact
        self.last_nprobe = self.num_lists if is_auto else min(int(self.nprobe), self.num_lists)
        if is_auto and not self.is_exact and self.recall < 1 and len(queries_mD):
            sample = Sample.draw(index, queries_mD, min(k, len(self)), self.seed)
            self.last_nprobe = sample.decide(index, queries_mD, self.recall)
        decided = time.monotonic()
        positions_mk, costs_mk = index.search(queries_mD, k, self.last_nprobe)
        if sample is not None:
            self.last_recall = share_found(positions_mk[sample.rows], sample.true_sk)
            of = " of what codes tell" if self.db_type == "pq" else ""
            measured = f"recall@{k} {self.last_recall:.3f}{of} on {len(sample.rows)} queries, "
        logger.info(
            "neighbours of %d queries: %s%d of %d lists, %.1f s, and %.1f s to decide that",
            len(queries_mD), measured, self.last_nprobe, self.num_lists, time.monotonic() - decided, decided - begin,
        )  # fmt: skip
        return positions_mk, costs_mk if self._is_l2 else -costs_mk

    def save(self, folder: str | Path) -> None:
        """Write the index into `folder`, each file under a temporary name first; `faiss_ids.json` comes last.

        `faiss_idx` holds the centroids, and `vectors.npy` the vectors; for `pq` the first holds everything.
        """
        folder, index = Path(folder), self._finished()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "faiss_ids.json").unlink(missing_ok=True)  # files of two indexes are none
        write_index(self._in_faiss(), folder / "faiss_idx")
        if isinstance(index, InvertedFile):
            with atomic_write(folder / "vectors.npy", "wb") as file:
                np.save(file, index.lists.vectors)
        settings = {name: getattr(self, name) for name in SETTINGS}
        write_json(folder / "faiss_ids.json", {"format": FORMAT, "settings": settings, "ids": self.ids})

    @classmethod
    def load(cls, folder: str | Path, **places: Any) -> VectorRetriever:
        """Read what `save` wrote; vectors stay in their file.

        Args:
            places: `device`, `memory_bytes` and `sketch_dir` as for a new index.
        Raises:
            DataError: a file is missing, of another format, or they do not belong together.
        """
        folder = Path(folder)
        table = read_json(folder / "faiss_ids.json")
        if not isinstance(table, dict) or table.get("format") != FORMAT:
            raise DataError(f"{folder / 'faiss_ids.json'}: not an id table of format {FORMAT}; build the index again.")
        retriever = cls(**table["settings"], **places)
        try:
            in_faiss = read_index(folder / "faiss_idx")
            vectors_ND = None if retriever.db_type == "pq" else np.load(folder / "vectors.npy", mmap_mode="r")
        except (RuntimeError, OSError, *NPY_ERRORS) as err:
            raise DataError(f"{folder}: not a readable index ({err}); build it again.") from None
        found, dim = (in_faiss.ntotal, in_faiss.d) if vectors_ND is None else vectors_ND.shape
        retriever.ids = table["ids"]
        retriever._known = set(retriever.ids)
        if found != len(retriever.ids) or dim != retriever.hidden_size:
            raise DataError(
                f"{folder}: `faiss_ids.json` names {len(retriever.ids)} vectors of size {retriever.hidden_size}, but "
                f"the index holds {found} of size {dim}; build it again."
            )
        if vectors_ND is None:
            retriever._index = PqIndex(in_faiss)
        else:
            centroids_LD = in_faiss.reconstruct_n(0, in_faiss.ntotal) if in_faiss.ntotal else None
            retriever._index = retriever._fill(vectors_ND, centroids_LD)
        return retriever

    @property
    def is_exact(self) -> bool:
        """Whether every query is compared with every vector, so that no lists are trained."""
        on_accelerator = self._workplace.device.type != "cpu" and self.nprobe == "auto" and self.db_type != "pq"
        return self.db_type == "exact" or on_accelerator

    def _finished(self) -> InvertedFile | PqIndex:
        assert self._index is not None, "finalize_training comes before this"
        return self._index

    def _affordable_lists(self, num_vectors: int) -> int:
        return min(self.cent, max(1, num_vectors // MIN_EXAMPLES_PER_CENTROID))

    def _training_vectors(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Return a seeded random choice of the vectors, float32."""
        wanted = self._affordable_lists(len(vectors_ND)) * self.examples_per_cent_to_train
        chosen = np.random.default_rng(self.seed).permutation(len(vectors_ND))[:wanted]
        return np.asarray(vectors_ND[np.sort(chosen)]).astype(np.float32, copy=False)

    def _fill(self, vectors_ND: np.ndarray, centroids_LD: np.ndarray | None) -> InvertedFile:
        """Train what is not given, and put the vectors into lists."""
        begin = time.monotonic()
        training_nD = self._training_vectors(vectors_ND)
        if centroids_LD is None and not self.is_exact:
            num_lists = self._affordable_lists(len(vectors_ND))
            centroids_LD = train_centroids(training_nD, num_lists, self.seed, is_l2=self._is_l2)
        settings = SearchSettings(Sketcher.fit(training_nD, is_l2=self._is_l2), self._metric, self._workplace)
        trained = time.monotonic()
        index = InvertedFile.build(vectors_ND, centroids_LD, settings, self._sketch_dir)
        logger.info(
            "index of %d vectors: %d lists, sketches of %d for %d numbers; trained in %.1f s, filled in %.1f s",
            len(vectors_ND), len(index.lists), settings.sketcher.size(self.hidden_size), self.hidden_size,
            trained - begin, time.monotonic() - trained,
        )  # fmt: skip
        return index

    def _encode(self, vectors_ND: np.ndarray) -> PqIndex:
        """Train `pq` and keep the vectors' codes."""
        index = PqIndex.train(self._training_vectors(vectors_ND), self._affordable_lists(len(vectors_ND)), self.seed)
        index.add(vectors_ND)
        return index

    def _in_faiss(self) -> Any:
        """Return what faiss can store of the index."""
        index = self._finished()
        if isinstance(index, PqIndex):
            return index.codes
        flat = flat_index(self.hidden_size, is_l2=self._is_l2)
        if index.centroids is not None:
            flat.add(index.centroids.vectors)
        return flat


def _check_settings(hidden_size: int, cent: int, db_type: str, nprobe: int | str, recall: float) -> None:
    problems = []
    if db_type not in DB_TYPES:
        problems.append(f"`db_type` must be one of {', '.join(DB_TYPES)}, but is `{db_type}`.")
    if db_type == "pq" and hidden_size % PQ_BYTES:
        problems.append(f"`db_type: pq` needs a hidden size divisible by {PQ_BYTES}, but it is {hidden_size}.")
    if cent < 1:
        problems.append(f"`centroids` must be at least 1, but is {cent}.")
    if nprobe != "auto" and (isinstance(nprobe, str) or nprobe < 1):
        problems.append(f"`nprobe` must be `auto` or a number of at least 1, but is `{nprobe}`.")
    if not 0 < recall <= 1:
        problems.append(f"`recall` must be above 0 and at most 1, but is {recall}.")
    if problems:
        raise ConfigError("retrieval", problems)
