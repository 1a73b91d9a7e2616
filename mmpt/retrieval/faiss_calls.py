"""What is left to faiss: k-means, exact costs of pairs, and its own files.

Legend: N vectors, n training vectors or pairs, m queries, L lists, D hidden size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

from mmpt.utils.io import atomic_write

KMEANS_ROUNDS = 10


def one_thread() -> None:
    """Keep torch and faiss from starting threads for what this thread calls."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def flat_index(dim: int, *, is_l2: bool) -> Any:
    """Return an empty faiss index that keeps vectors as they are."""
    return faiss.IndexFlatL2(dim) if is_l2 else faiss.IndexFlatIP(dim)


def train_centroids(training_nD: np.ndarray, num_lists: int, seed: int, *, is_l2: bool) -> np.ndarray:
    """Return the means of k-means over all vectors float32 (on the sphere for dot products), float32 [L,D]."""
    clustering = faiss.Clustering(training_nD.shape[1], num_lists)
    clustering.niter, clustering.spherical = KMEANS_ROUNDS, not is_l2
    use_all(clustering, len(training_nD), seed)
    flat = flat_index(training_nD.shape[1], is_l2=is_l2)
    clustering.train(training_nD, flat)
    return flat.reconstruct_n(0, num_lists)


def use_all(clustering: Any, num_examples: int, seed: int) -> None:
    """Let a clustering take all examples that it is given: no thinning out of its own, no warning."""
    clustering.seed = 1 + seed
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = max(clustering.max_points_per_centroid, num_examples)


def pair_costs(
    queries_mD: np.ndarray, rows: np.ndarray, vectors_ND: np.ndarray, columns: np.ndarray, *, is_l2: bool
) -> np.ndarray:
    """Return exact costs of n pairs, float32 [n], by the arithmetic of faiss' own one-by-one scan.

    Args:
        rows: int64 [n], of the queries; `columns` likewise of the vectors.
    """
    costs = np.empty(len(rows), dtype=np.float32)
    pairwise = getattr(faiss, "pairwise_indexed_L2sqr" if is_l2 else "pairwise_indexed_inner_product")
    arrays = [queries_mD, rows.astype(np.int64), vectors_ND, columns.astype(np.int64), costs]
    pairwise(queries_mD.shape[1], len(rows), *map(faiss.swig_ptr, arrays))
    return costs if is_l2 else -costs


def write_index(index: Any, path: Path) -> None:
    """Write a faiss index, under a temporary name first."""
    with atomic_write(path, "wb") as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def read_index(path: Path) -> Any:
    """Read a faiss index.

    Raises:
        RuntimeError: faiss cannot read it.
    """
    return faiss.read_index(str(path))
