"""Neighbours against brute force.

They must not depend on other queries, the number of threads, the device or the storage.
"""

import logging

import faiss
import numpy as np
import pytest
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval import VectorRetriever
from mmpt.retrieval.all_pairs import search_all
from tests.support.vectors import DIM, brute_force, build, clustered, share_found

CPU_SETTINGS = [
    {"nprobe": 8},
    {"recall": 1},
    {"db_type": "exact"},
    {"db_type": "innerproduct", "nprobe": 8},
]


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("settings", CPU_SETTINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_all_lists_and_all_pairs_equal_brute_force(settings, dtype):
    vectors = clustered(1500).astype(dtype)
    positions, scores = build(vectors, **settings).search(vectors[::7], 40)
    expected, expected_scores = brute_force(vectors, vectors[::7], 40, settings.get("db_type"))
    assert np.array_equal(positions, expected)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)  # measured: 3e-7


@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
@pytest.mark.parametrize("nprobe", [1, 3])
def test_few_probes_find_the_nearest_vectors_of_their_lists(db_type, nprobe):
    vectors = clustered(1500)
    retriever = build(vectors, nprobe=nprobe, db_type=db_type)
    positions, scores = retriever.search(vectors[:60], 300)
    centroids = retriever.index.quantizer.reconstruct_n(0, retriever.num_lists)
    nearest_lists, _ = brute_force(centroids, vectors[:60], nprobe, db_type)
    list_of, _ = brute_force(centroids, vectors, 1, db_type)
    for row, lists in enumerate(nearest_lists):
        members = np.flatnonzero(np.isin(list_of[:, 0], lists))
        best, best_scores = brute_force(vectors[members], vectors[row : row + 1], 300, db_type)
        num_found = min(300, len(members))
        is_same = positions[row, :num_found] == members[best[0]]
        assert is_same.mean() > 0.99  # two distances may be equal in float32
        np.testing.assert_allclose(scores[row, :num_found], best_scores[0], rtol=1e-5, atol=1e-6)
        assert (positions[row, num_found:] == -1).all()
        assert np.isinf(scores[row, num_found:]).all()


def test_float16_vectors_are_stored_without_loss():
    vectors = clustered(1500).astype(np.float16)
    index = build(vectors).index
    assert isinstance(index, faiss.IndexIVFScalarQuantizer)
    assert index.code_size == 2 * DIM
    assert np.array_equal(index.reconstruct_n(0, len(vectors)), vectors.astype(np.float32))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
@pytest.mark.parametrize("k", [1, 40, 240])
def test_all_pairs_in_blocks_equal_brute_force(device, db_type, k):
    vectors = clustered(240 if k > 200 else 1230).astype(np.float16)
    queries = vectors[:150].astype(np.float32)
    positions, scores = search_all(
        queries,
        vectors,
        k,
        is_l2=db_type == "flatl2",
        device=torch.device(device),
        max_block=99,  # the last block is smaller, and one k is larger
    )
    expected, expected_scores = brute_force(vectors, queries, k, db_type)
    assert (positions == expected).mean() > 0.999  # measured: 1; the rest would be rounding
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
def test_gpu_and_cpu_find_the_same_neighbours(db_type):
    vectors = clustered(3000).astype(np.float16)
    found = build(vectors, db_type=db_type, device=torch.device("cuda")).search(vectors[:300], 50)
    expected = build(vectors, db_type=db_type, nprobe=8).search(vectors[:300], 50)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


@pytest.mark.filterwarnings("error")
def test_vectors_and_queries_may_be_read_only():
    vectors = clustered(300).astype(np.float16)
    vectors.setflags(write=False)
    expected = brute_force(vectors, vectors[:40], 9)[0]
    for settings in ({"nprobe": 8}, {"db_type": "exact"}):
        assert np.array_equal(build(vectors, **settings).search(vectors[:40], 9)[0], expected)


@pytest.fixture
def threads():
    """A function that sets the number of threads of faiss. It is restored after the test."""
    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("settings", [{"cent": 16, "nprobe": 3}, {"db_type": "exact"}])
def test_neighbours_depend_on_neither_other_queries_nor_threads(threads, settings):
    vectors = clustered(3000, noise=0.9).astype(np.float16)
    answers = []
    for num_threads in (1, 2, 5):
        threads(num_threads)
        retriever = build(vectors, **settings)
        answers.append(retriever.search(vectors[:200], 50))
    retriever = build(vectors, **settings, max_distances=1000)  # in small blocks
    answers.append(retriever.search(vectors[:200], 50))
    for positions, scores in answers[1:]:
        assert np.array_equal(answers[0][0], positions)
        assert np.array_equal(answers[0][1], scores)
    rows = range(0, 200, 4)
    one_by_one = [retriever.search(vectors[row : row + 1], 50)[0][0] for row in rows]
    assert np.array_equal(answers[0][0][::4], one_by_one)


@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 5, "nprobe": 5}])
def test_equally_near_vectors_are_ordered_by_position(settings):
    vectors = np.repeat(clustered(50), 4, axis=0)[np.random.default_rng(0).permutation(200)]
    positions, distances = build(vectors, **settings).search(vectors[:20], 4)
    for query, found in enumerate(positions):
        equal = np.flatnonzero((vectors == vectors[query]).all(axis=1))
        assert found.tolist() == equal.tolist()
    assert not distances.any()


def test_auto_fills_every_list_and_reaches_the_recall_with_the_fewest_probes(caplog):
    vectors = clustered(2000, clusters=100, noise=1.5)
    retriever = build(vectors, cent=40)
    with caplog.at_level(logging.INFO):
        positions, _ = retriever.search(vectors[::10], 150)
    assert (positions >= 0).all()
    expected, _ = brute_force(vectors, vectors[::10], 150)
    recall = share_found(positions, expected)
    assert 0.95 <= recall < 1  # measured: 0.953; all lists would give 1
    assert retriever.last_recall == pytest.approx(recall)  # the sample has all queries
    num_probes = retriever.last_nprobe
    report = f"neighbours of 200 queries: {num_probes} of 40 lists, recall@150 {recall:.3f} on a "
    assert report in caplog.text
    one_less, _ = build(vectors, cent=40, nprobe=num_probes - 1).search(vectors[::10], 150)
    assert share_found(one_less, expected) < 0.95 or (one_less < 0).any()


@pytest.mark.parametrize("settings", [{}, {"nprobe": 1}, {"db_type": "exact"}])
def test_few_queries_and_more_neighbours_than_vectors(settings):
    vectors = clustered(60)
    retriever = build(vectors, cent=1, **settings)
    for num in (1, 3):
        positions, distances = retriever.search(vectors[:num], 100)
        assert positions.shape == distances.shape == (num, 100)
        assert (np.sort(positions[:, :60], axis=1) == np.arange(60)).all()
        assert (positions[:, 60:] == -1).all()


def test_few_vectors_make_fewer_lists_and_nothing_is_printed(caplog, capfd):
    vectors = clustered(200)
    retriever = build(vectors, cent=64)
    assert retriever.num_lists == 200 // 39
    assert (retriever.search(vectors, 20)[0] >= 0).all()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [
        "200 vectors are too few to train 64 lists" in record.message for record in warnings
    ] == [True]
    assert capfd.readouterr() == ("", "")  # faiss prints warnings and progress


def test_pq_finds_most_neighbours(capfd):
    vectors = clustered(1500, dim=64)
    retriever = build(vectors, cent=16, db_type="pq")
    assert isinstance(retriever.index, faiss.IndexIVFPQ)
    positions, _ = retriever.search(vectors[:50], 50)
    expected, _ = brute_force(vectors, vectors[:50], 50)
    assert share_found(positions, expected) > 0.8  # measured: 0.94; at random: 0.03
    assert capfd.readouterr() == ("", "")


def test_impossible_settings_and_data_are_refused():
    with pytest.raises(ConfigError, match=r"divisible by 32, but it is 100; use `flatl2`"):
        VectorRetriever(100, 8, db_type="pq")
    with pytest.raises(DataError, match="at least 256 vectors, but on 96"):
        build(clustered(100), db_type="pq")
    with pytest.raises(DataError, match="no vectors"):
        VectorRetriever(DIM, 8).finalize_training()


def test_settings_that_make_the_search_exact():
    gpu = torch.device("cuda")  # no GPU is used
    assert VectorRetriever(DIM, 8, db_type="exact").is_exact
    assert VectorRetriever(DIM, 8, device=gpu).is_exact
    assert not VectorRetriever(DIM, 8, device=gpu, nprobe=1).is_exact
    assert not VectorRetriever(DIM, 8, device=gpu, db_type="pq").is_exact
    assert not VectorRetriever(DIM, 8, device=torch.device("cpu")).is_exact
