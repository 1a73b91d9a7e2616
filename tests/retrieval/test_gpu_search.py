"""The search in torch against brute force; on the CPU, where it computes the same."""

import numpy as np
import pytest
import torch

from mmpt.retrieval import gpu_search
from tests.vectors import brute_force, build, clustered

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
@pytest.mark.parametrize("k", [1, 40, 250])
def test_blocks_equal_brute_force(monkeypatch, device, db_type, k):
    monkeypatch.setattr(gpu_search, "QUERY_ROWS", 70)
    monkeypatch.setattr(gpu_search, "VECTOR_ROWS", 99)  # the last block has 42 vectors, some k more
    vectors = clustered(240 if k > 200 else 1230).astype(np.float16)
    queries = vectors[:150].astype(np.float32)
    k = min(k, len(vectors))
    positions, scores = gpu_search.search_all(
        queries, vectors, k, is_l2=db_type == "flatl2", device=torch.device(device)
    )
    expected, expected_scores = brute_force(vectors, queries, k, db_type)
    assert (positions == expected).mean() > 0.999  # measured: 1; the rest would be rounding
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
def test_a_gpu_answers_as_the_cpu(db_type):
    vectors = clustered(3000).astype(np.float16)
    found = build(vectors, db_type=db_type, device=torch.device("cuda")).search(vectors[:300], 50)
    expected = build(vectors, db_type=db_type, nprobe=8).search(vectors[:300], 50)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
