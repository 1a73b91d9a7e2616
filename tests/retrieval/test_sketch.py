"""Distances and products of sketches bound the true ones, computed here in float64."""

import numpy as np
import pytest

from mmpt.retrieval.sketch import Sketcher, rounding


def decaying(num, dim, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    scales = np.exp(-np.arange(dim) / (dim / 16))
    turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return (rng.standard_normal((num, dim)) * scales @ turned + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0, 50])
def test_distances_of_sketches_are_below_the_true_ones(offset):
    vectors = decaying(400, 128, offset=offset)
    vectors[:50] = vectors[50:100] + np.float32(1e-3) * decaying(50, 128, seed=1)  # close pairs
    sketcher = Sketcher.fit(vectors[100:], is_l2=True)
    assert sketcher.size(128) == 17
    sketches = sketcher(vectors).astype(np.float64)
    short = np.square(sketches[:, None] - sketches).sum(axis=2)
    true = np.square(vectors[:, None].astype(np.float64) - vectors).sum(axis=2)
    lengths = np.linalg.norm(sketches, axis=1)
    slack = 2 * rounding(128) * np.square(lengths[:, None] + lengths)
    assert (short <= true + slack).all()
    assert np.median(short / np.maximum(true, 1e-9)) > 0.9  # measured: 0.97; a bound of 0 would be true as well


def test_products_of_sketches_are_above_the_true_ones():
    vectors = decaying(300, 128, offset=0.1)
    sketcher = Sketcher.fit(vectors, is_l2=False)
    sketches = sketcher(vectors).astype(np.float64)
    true = vectors.astype(np.float64) @ vectors.T
    assert (sketches @ sketches.T >= true - 1e-5 * np.abs(true).max()).all()
    assert np.abs(sketches @ sketches.T - true).max() < 0.2 * np.abs(true).max()


def test_vectors_that_differ_in_all_directions_are_their_own_sketches():
    vectors = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    sketcher = Sketcher.fit(vectors, is_l2=True)
    assert sketcher.size(64) == 64
    assert sketcher(vectors) is vectors


def test_equal_vectors():
    vectors = np.ones((20, 128), np.float32)
    assert Sketcher.fit(vectors, is_l2=True)(vectors) is vectors
