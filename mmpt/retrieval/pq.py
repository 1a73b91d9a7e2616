"""Product-quantised codes in faiss' lists: no vectors are kept, so costs are those of the codes.

Legend: N vectors, L lists, m queries, P probed lists per query, k neighbours, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from mmpt.errors import DataError
from mmpt.retrieval.faiss_calls import use_all

PQ_BYTES = 32
"""Of a vector's code."""
MIN_EXAMPLES = 256
"""A code's byte has so many values, each trained on one vector at least."""
ADD_ROWS = 1 << 16
"""Vectors encoded at once."""


@dataclass(frozen=True)
class PqIndex:
    """A trained `faiss.IndexIVFPQ`, searched in the manner of `InvertedFile`."""

    codes: Any
    """The index; faiss' stubs know only its base class."""

    @classmethod
    def train(cls, training_nD: np.ndarray, num_lists: int, seed: int) -> PqIndex:
        """Train lists and codes.

        Raises:
            DataError: too few vectors.
        """
        if len(training_nD) < MIN_EXAMPLES:
            raise DataError(
                f"`db_type: pq` trains on at least {MIN_EXAMPLES} vectors, but on {len(training_nD)}; use `flatl2`."
            )
        codes: Any = faiss.index_factory(training_nD.shape[1], f"IVF{num_lists}_HNSW32,PQ{PQ_BYTES}")
        codes.do_polysemous_training = False  # renumbers codes for a filter that is not used; takes minutes
        for clustering in (codes.cp, codes.pq.cp):
            use_all(clustering, len(training_nD), seed)
        codes.train(training_nD)
        return cls(codes)

    def add(self, vectors_ND: np.ndarray) -> None:
        """Store the codes of vectors float32 or float16."""
        for begin in range(0, len(vectors_ND), ADD_ROWS):
            self.codes.add(np.ascontiguousarray(vectors_ND[begin : begin + ADD_ROWS], dtype=np.float32))

    @property
    def sizes(self) -> np.ndarray:
        """int64 [L]: vectors per list."""
        return np.array([self.codes.invlists.list_size(which) for which in range(self.codes.nlist)])

    def list_of_positions(self) -> np.ndarray:
        """Return the list that holds each position, int64 [N]."""
        list_of_N = np.empty(self.codes.ntotal, dtype=np.int64)
        for which, size in enumerate(self.sizes.tolist()):
            if size:
                list_of_N[faiss.rev_swig_ptr(self.codes.invlists.get_ids(which), size)] = which
        return list_of_N

    def probe(self, queries_mD: np.ndarray, num_probes: int) -> np.ndarray:
        """Return the lists nearest to each query, int64 [m,P], nearest first; -1 where the quantiser finds no more."""
        return self.codes.quantizer.search(queries_mD, num_probes)[1]

    def search(self, queries_mD: np.ndarray, k: int, num_probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return positions int64 [m,k] by rising (cost, position), -1 for none, and costs float32, infinite there."""
        self.codes.nprobe = num_probes
        costs_mk, positions_mk = self.codes.search(queries_mD, k)
        costs_mk[positions_mk < 0] = np.inf
        order = np.lexsort((positions_mk, costs_mk), axis=1)
        return np.take_along_axis(positions_mk, order, axis=1), np.take_along_axis(costs_mk, order, axis=1)
