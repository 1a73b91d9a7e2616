"""Made-up vectors, an index of them, and their neighbours by brute force."""

import numpy as np

from mmpt.retrieval import VectorRetriever

DIM = 32


def clustered(num, seed=0, clusters=20, noise=0.5, dim=DIM):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return (centres[rng.integers(0, clusters, num)] + noise * rng.standard_normal((num, dim))).astype(np.float32)


def low_rank(num, seed=0, dim=96):
    """Vectors that a sketch of 17 numbers holds nearly whole."""
    rng = np.random.default_rng(seed)
    inner = clustered(num, seed, dim=12) @ rng.standard_normal((12, dim))
    return (inner + 0.02 * rng.standard_normal((num, dim))).astype(np.float32)


def build(vectors, cent=8, **settings):
    retriever = VectorRetriever(vectors.shape[1], cent, **settings)
    retriever.add(vectors, [f"v{number}" for number in range(len(vectors))])
    retriever.finalize_training()
    return retriever


def brute_force(vectors, queries, k):
    """Nearest k by squared L2 in float64, ties by position."""
    distances = np.square(queries[:, None].astype(np.float64) - vectors[None]).sum(axis=2)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(distances, order, axis=1)
