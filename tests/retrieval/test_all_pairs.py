"""Exact neighbours, found by comparing all pairs in blocks, against brute force."""

import numpy as np
import pytest
import torch

from mmpt.retrieval.all_pairs import search_all
from tests.support.vectors import brute_force, clustered

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
@pytest.mark.parametrize("k", [1, 40, 240])
def test_all_pairs_in_blocks_equal_brute_force(device, db_type, k):
    num_vectors = 240 if k > 200 else 1230
    vectors = clustered(num_vectors).astype(np.float16)
    queries = vectors[:150].astype(np.float32)
    positions, scores = search_all(
        queries,
        vectors,
        k,
        is_l2=db_type == "flatl2",
        device=torch.device(device),
        max_block=99,  # the last block is smaller than this, and one k is larger
    )
    expected, expected_scores = brute_force(vectors, queries, k, db_type)
    is_same = positions == expected
    assert is_same.mean() > 0.999  # measured: 1. Only rounding may make a difference.
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-3)
