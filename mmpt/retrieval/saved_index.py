"""A faiss index in a file, for searches of vectors that do not fit in memory.

The index finds candidates. Their exact dot products with the query, computed from the vectors
themselves, decide which ones are returned and in which order. So the index may hold codes that are
much smaller than the vectors, and scores do not depend on the type of the index. Both files are
mapped into memory: a search reads the parts that it needs.

Legend: N vectors, n vectors of a block, m queries, k neighbours, D hidden size.
"""

import mmap
import re
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from mmpt.errors import DataError
from mmpt.retrieval.all_pairs import Neighbours
from mmpt.utils.io import atomic_write, reading
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

MAX_FLAT = 100_000
"""Largest number of vectors for which the default type of index compares all of them."""
DIMENSIONS_PER_CODE = 4
"""Number of dimensions that four bits of a code encode, in the default type of large indexes."""
MIN_TRAINING = 1 << 16
"""Smallest number of training vectors. If there are fewer vectors, all of them are used."""
TRAINING_PER_LIST = 50
"""Number of training vectors for each list of an inverted file."""
LISTS_PER_PROBE = 8
"""Number of lists of an inverted file for each list that a query searches."""
MIN_CANDIDATES = 1000
CANDIDATES_PER_ROOT = 4
"""Number of candidates whose exact scores are computed, for each square root of the number of
vectors, or `MIN_CANDIDATES` if that is more."""
BLOCK_ROWS = 1 << 15
"""Number of vectors that are converted to float32 at a time."""


def default_type(num_vectors: int, hidden_size: int, max_flat: int = MAX_FLAT) -> str:
    """Returns the type of index, as for `faiss.index_factory`, for this number of vectors.

    A query is compared with all vectors if they are few, else with the codes of all vectors. An
    inverted file with many lists would compare only the vectors near the query. It misses many
    neighbours if the vectors do not form clusters, or if queries differ from vectors, as texts
    differ from videos.

    Args:
        hidden_size: D.
        max_flat: largest number of vectors that are all compared.
    """
    if num_vectors <= max_flat:
        return "Flat"
    if hidden_size % DIMENSIONS_PER_CODE:
        return "SQ8"
    # One list holds all codes. Unlike a plain PQ index, an inverted file is mapped into memory.
    return f"IVF1,PQ{hidden_size // DIMENSIONS_PER_CODE}x4fs"


def map_vectors(path: str | Path, hidden_size: int) -> np.ndarray:
    """Returns the vectors in a file of rows of float16, mapped into memory, [N, D].

    Raises:
        DataError: the file is missing.
    """
    with reading(path, "Build the index again."):
        num_bytes = Path(path).stat().st_size
        num_rows = num_bytes // (2 * hidden_size)
        if not num_rows:  # an empty file cannot be mapped
            return np.zeros((0, hidden_size), dtype=np.float16)
        return np.memmap(path, np.float16, "r", shape=(num_rows, hidden_size))


def find_mapping(array: np.ndarray) -> mmap.mmap | None:
    """Returns the mapped file whose content an array is, or None if it is not mapped."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base  # of a part of an array, this is the whole array
    return base if isinstance(base, mmap.mmap) else None


def request_rows(vectors_ND: np.ndarray, rows: np.ndarray) -> None:
    """Asks the system to read rows of a mapped file that are not in memory, and does not wait.

    Otherwise each row would be read when it is needed, one after another, and every time with a
    large part of the file around it.

    Args:
        vectors_ND: the first rows of a mapped file, or an array in memory, for which there is
            nothing to do.
        rows: row numbers.
    """
    mapping = find_mapping(vectors_ND)
    if mapping is None or not hasattr(mapping, "madvise"):  # it is missing on Windows
        return
    row_bytes = vectors_ND.strides[0]
    for row in rows.tolist():
        begin = row * row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        end = (row + 1) * row_bytes
        mapping.madvise(mmap.MADV_WILLNEED, begin, end - begin)


class SavedIndex:
    """Vectors and a faiss index of them, which are compared by dot product.

    Args:
        index: the faiss index, with all vectors of `vectors_ND` added in this order.
        vectors_ND: float16, usually mapped into memory.
    """

    def __init__(self, index: Any, vectors_ND: np.ndarray):
        self.index = index
        self.vectors_ND = vectors_ND

    def __len__(self) -> int:
        return len(self.vectors_ND)

    @classmethod
    def build(cls, vectors_ND: np.ndarray, index_type: str, seed: int = 0) -> Self:
        """Returns an index of all vectors.

        Args:
            vectors_ND: float16, usually mapped into memory.
            index_type: as for `faiss.index_factory`: `Flat`, `HNSW32`, `IVF1000,PQ96` and so on.
            seed: seed of the choice of training vectors.
        Raises:
            DataError: faiss does not know this type, or cannot train it with these vectors.
        """
        num_vectors, hidden_size = vectors_ND.shape
        index = new_index(index_type, hidden_size)
        try:
            _train(index, vectors_ND, seed)
        except RuntimeError as err:
            raise DataError(
                f"the type of index must be one that {num_vectors} vectors can train, but is "
                f"{index_type!r} ({_reason(err)}). Leave it out for the default."
            ) from err
        saved = cls(index, vectors_ND[:0])
        saved.extend(vectors_ND)
        return saved

    def extend(self, vectors_ND: np.ndarray) -> None:
        """Adds the vectors of `vectors_ND` that are not in the index yet.

        Args:
            vectors_ND: float16, all vectors. The first ones are in the index already.
        """
        begins = range(len(self), len(vectors_ND), BLOCK_ROWS)
        num_new = len(vectors_ND) - len(self)
        counted = progress(begins, num_new, "vectors indexed", logger, unit=BLOCK_ROWS)
        for begin in counted:
            block_nD = vectors_ND[begin : begin + BLOCK_ROWS]
            self.index.add(block_nD.astype(np.float32))
        self.vectors_ND = vectors_ND

    def save(self, path: str | Path) -> None:
        """Writes the faiss index to a temporary file, then renames it."""
        with atomic_write(path, "wb") as file:
            writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(self.index, writer)

    @classmethod
    def load(
        cls, path: str | Path, vectors_ND: np.ndarray, *, is_mapped: bool = True
    ) -> Self:
        """Returns an index from a file.

        Args:
            vectors_ND: float16, the vectors that it was built from.
            is_mapped: map the file into memory instead of reading it. A mapped index cannot be
                extended.
        Raises:
            DataError: the file is missing or damaged, or is an index of other vectors.
        """
        flags = faiss.IO_FLAG_MMAP_IFC if is_mapped else 0
        remedy = "Build the index again."
        with reading(path, remedy), open(path, "rb"):
            pass
        try:
            index = faiss.read_index(str(path), flags)
        except RuntimeError as err:
            raise DataError(
                f"{path}: not a complete faiss index ({_reason(err)}). {remedy}"
            ) from err
        expected = vectors_ND.shape
        found = (index.ntotal, index.d)
        if found != expected:
            raise DataError(
                f"{path}: must be an index of {expected[0]} vectors of {expected[1]} numbers, but "
                f"is one of {found[0]} of {found[1]}. {remedy}"
            )
        return cls(index, vectors_ND)

    def search(
        self, queries_mD: np.ndarray, k: int, num_candidates: int | None = None
    ) -> Neighbours:
        """Returns the k nearest vectors of every query. Equal scores are ordered by position.

        Args:
            queries_mD: float32.
            k: if there are fewer vectors, all of them are returned.
            num_candidates: number of vectors that the index is asked for, at least k. None: it
                grows with the square root of the number of vectors.
        """
        if num_candidates is None:
            for_size = round(CANDIDATES_PER_ROOT * len(self) ** 0.5)
            num_candidates = max(MIN_CANDIDATES, for_size)
        k = min(k, len(self))
        num_candidates = min(max(num_candidates, k), len(self))
        queries_mD = np.ascontiguousarray(queries_mD, dtype=np.float32)
        if hasattr(self.index, "hnsw"):
            # With fewer nodes in its queue, the search ends before it has found so many.
            self.index.hnsw.efSearch = num_candidates
        _, candidates = self.index.search(queries_mD, num_candidates)
        shape = (len(queries_mD), k)
        positions_mk = np.full(shape, -1, dtype=np.int64)
        scores_mk = np.full(shape, -np.inf, dtype=np.float32)
        for query, found in enumerate(candidates):
            # Read the rows in the order of the file. The index returns -1 where it found too few.
            rows = np.sort(found[found >= 0])
            request_rows(self.vectors_ND, rows)
            scores = self.vectors_ND[rows].astype(np.float32) @ queries_mD[query]
            best = np.argsort(-scores, kind="stable")[:k]
            positions_mk[query, : len(best)] = rows[best]
            scores_mk[query, : len(best)] = scores[best]
        return Neighbours(positions_mk, scores_mk)


def new_index(index_type: str, hidden_size: int) -> Any:
    """Returns an empty faiss index of a type.

    Raises:
        DataError: faiss does not know the type, or it does not fit the hidden size.
    """
    metric = faiss.METRIC_INNER_PRODUCT
    try:
        return faiss.index_factory(hidden_size, index_type, metric)
    except RuntimeError as err:
        raise DataError(
            "the type of index must be one of faiss's index_factory that fits vectors of "
            f"{hidden_size} numbers, but is {index_type!r} ({_reason(err)}). Leave it out for the "
            "default."
        ) from err


def _train(index: Any, vectors_ND: np.ndarray, seed: int) -> None:
    """Trains a faiss index with a sample of the vectors, and sets how many lists are searched."""
    if hasattr(index, "do_polysemous_training"):
        # This training takes minutes, and serves a filter that is not used here.
        index.do_polysemous_training = False
    num_training = MIN_TRAINING
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None:
        num_training = max(num_training, TRAINING_PER_LIST * lists.nlist)
        # The number of lists to search is stored in the file of the index.
        lists.nprobe = max(1, lists.nlist // LISTS_PER_PROBE)
    if not index.is_trained:
        rows = _sample_rows(len(vectors_ND), num_training, seed)
        logger.info("training the index with %d vectors", len(rows))
        index.train(vectors_ND[rows].astype(np.float32))


def _sample_rows(num_rows: int, num_wanted: int, seed: int) -> np.ndarray:
    """Returns different row numbers in rising order, at most `num_wanted`, int64."""
    if num_wanted >= num_rows:
        return np.arange(num_rows)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(num_rows, num_wanted, replace=False))


def _reason(err: RuntimeError) -> str:
    """Returns the message of an error of faiss, without the place in its source."""
    last_line = str(err).strip().splitlines()[-1]
    return re.sub(r"^Error in .*?\.cpp:\d+: (Error: '.*' failed: )?", "", last_line)
