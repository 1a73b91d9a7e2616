"""An inverted file of our own: vectors by their nearest centroid, or, without centroids, all of them for every query.

Legend: N vectors, L lists, m queries, P probed lists per query, k neighbours, D hidden size, S size of a sketch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.retrieval.listscan import ListScan, Metric, visit_all, visit_probes
from mmpt.retrieval.sketch import Sketcher
from mmpt.retrieval.threads import Workplace, side_by_side
from mmpt.retrieval.vectorlists import VectorLists, as_float32, empty_sketches
from mmpt.utils.log import get_logger, progress
from mmpt.utils.tf32 import float32_products

logger = get_logger(__name__)

FILL_ROWS = 1 << 13
"""Vectors sketched and put into lists at once."""


@dataclass(frozen=True)
class SearchSettings:
    """How vectors are compared, and where."""

    sketcher: Sketcher
    metric: Metric
    workplace: Workplace


@dataclass(frozen=True)
class Centroids:
    """The middle of every list."""

    vectors: np.ndarray
    """float32 [L,D]."""
    settings: SearchSettings

    def nearest(self, queries_mD: np.ndarray, sketches_mS: np.ndarray, num: int) -> np.ndarray:
        """Return each query's nearest lists, int64 [m,num], nearest first, the lower of equally near ones first."""
        sketched = self.settings.sketcher.basis is not None
        lists = VectorLists.whole(self.vectors, self.settings.sketcher(self.vectors) if sketched else None)
        scan = ListScan(queries_mD, sketches_mS, lists, num, self.settings.metric, self.settings.workplace)
        for visit in visit_all(len(queries_mD), lists):
            scan.visit(visit)
        return scan.result()[0]


@dataclass(frozen=True)
class InvertedFile:
    """Vectors in lists, and the centroids that say which lists are near."""

    lists: VectorLists
    centroids: Centroids | None
    """None when every query searches all lists."""
    settings: SearchSettings

    @classmethod
    def build(
        cls,
        vectors_ND: np.ndarray,
        centroids_LD: np.ndarray | None,
        settings: SearchSettings,
        sketch_dir: Path | None = None,
    ) -> InvertedFile:
        """Sketch vectors and put each into the list of its nearest centroid, the first of equally near ones.

        Args:
            vectors_ND: float32 or float16; they stay where they are and must not change.
            centroids_LD: float32.
            sketch_dir: where sketches are kept in a file; None: in RAM.
        """
        num_vectors, dim = vectors_ND.shape
        centroids = None if centroids_LD is None else Centroids(centroids_LD, settings)
        sketches_NS = empty_sketches(num_vectors, dim, settings.sketcher, sketch_dir)
        list_of_N = np.zeros(num_vectors, dtype=np.int32)

        def fill(begin: int) -> None:
            rows = slice(begin, min(begin + FILL_ROWS, num_vectors))
            block_nD = as_float32(vectors_ND[np.arange(rows.start, rows.stop)])  # a copy: torch warns of what is mapped
            sketches_nS = settings.sketcher(block_nD)
            if sketches_NS is not None:
                sketches_NS[rows] = sketches_nS
            if centroids is not None:
                list_of_N[rows] = centroids.nearest(block_nD, sketches_nS, 1)[:, 0]

        if centroids is not None or sketches_NS is not None:
            with float32_products(settings.workplace.device, "highest"):
                blocks = side_by_side(fill, range(0, num_vectors, FILL_ROWS), settings.workplace)
                for _ in progress(blocks, num_vectors, "vectors put into lists", logger, unit=FILL_ROWS):
                    pass
        if centroids is None:
            return cls(VectorLists.whole(vectors_ND, sketches_NS), None, settings)
        return cls(VectorLists.group(vectors_ND, list_of_N, len(centroids.vectors), sketches_NS), centroids, settings)

    @property
    def sizes(self) -> np.ndarray:
        """int64 [L]: vectors per list."""
        return self.lists.sizes

    def list_of_positions(self) -> np.ndarray:
        """Return the list that holds each position, int64 [N]."""
        return self.lists.list_of_positions()

    def probe(self, queries_mD: np.ndarray, num_probes: int) -> np.ndarray:
        """Return the lists nearest to each query, int64 [m,P], nearest first."""
        assert self.centroids is not None, "all lists are searched"
        with float32_products(self.settings.workplace.device, "highest"):
            return self.centroids.nearest(queries_mD, self.settings.sketcher(queries_mD), num_probes)

    def search(self, queries_mD: np.ndarray, k: int, num_probes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest vectors of every query in its nearest lists, as `ListScan.result` does."""
        if num_probes == len(self.lists):
            visits = visit_all(len(queries_mD), self.lists)
        else:
            visits = visit_probes(self.probe(queries_mD, num_probes))
        settings = self.settings
        scan = ListScan(queries_mD, settings.sketcher(queries_mD), self.lists, k, settings.metric, settings.workplace)
        with float32_products(settings.workplace.device, "highest"):
            done = side_by_side(scan.visit, visits, settings.workplace)
            for _ in progress(done, len(visits), "lists read", logger):
                pass
        return scan.result()
