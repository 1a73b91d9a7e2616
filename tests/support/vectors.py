"""Vectors in clusters, an index of them, and their neighbours by brute force."""

import numpy as np

from mmpt.retrieval import VectorRetriever

DIM = 32


def clustered(num, seed=0, clusters=20, noise=0.5, dim=DIM):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    vectors = centres[rng.integers(0, clusters, num)] + noise * rng.standard_normal(
        (num, dim)
    )
    return vectors.astype(np.float32)


def build(vectors, cent=8, centroids=None, **settings):
    retriever = VectorRetriever(vectors.shape[1], cent, **settings)
    retriever.add(vectors)
    retriever.finalize_training(centroids)
    return retriever


def brute_force(vectors, queries, k, db_type="flatl2"):
    """Returns positions and squared L2 distances (or dot products) of the k nearest vectors.

    They are computed in float64. Ties are ordered by position.
    """
    vectors, queries = vectors.astype(np.float64), queries.astype(np.float64)
    if db_type == "innerproduct":
        costs = -queries @ vectors.T
    else:
        costs = np.square(queries[:, None] - vectors[None]).sum(axis=2)
    order = np.argsort(costs, axis=1, kind="stable")[:, :k]
    costs = np.take_along_axis(costs, order, axis=1)
    return order, -costs if db_type == "innerproduct" else costs


def share_found(found, expected):
    """Returns the mean share of the expected neighbours that were found."""
    pairs = zip(found, expected, strict=True)
    return np.mean(
        [len(np.intersect1d(ours, theirs)) / len(theirs) for ours, theirs in pairs]
    )
