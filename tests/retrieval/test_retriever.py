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
from tests.support.vectors import DIM, brute_force, build, clustered, share_found

CPU_SETTINGS = [
    {"nprobe": 8},
    {"recall": 1},
    {"db_type": "exact"},
    {"db_type": "innerproduct", "nprobe": 8},
]


@pytest.mark.parametrize("settings", CPU_SETTINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_all_lists_and_all_pairs_equal_brute_force(settings, dtype):
    vectors = clustered(1500).astype(dtype)
    queries = vectors[::7]
    retriever = build(vectors, **settings)
    positions, scores = retriever.search(queries, 40)
    expected, expected_scores = brute_force(
        vectors, queries, 40, settings.get("db_type")
    )
    assert np.array_equal(positions, expected)
    # measured: 3e-7
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
@pytest.mark.parametrize("nprobe", [1, 3])
def test_few_probes_find_the_nearest_vectors_of_their_lists(db_type, nprobe):
    vectors = clustered(1500)
    queries = vectors[:60]
    retriever = build(vectors, nprobe=nprobe, db_type=db_type)
    positions, scores = retriever.search(queries, 300)
    centroids = retriever.index.quantizer.reconstruct_n(0, retriever.num_lists)
    nearest_lists, _ = brute_force(centroids, queries, nprobe, db_type)
    list_of, _ = brute_force(centroids, vectors, 1, db_type)
    for row, lists in enumerate(nearest_lists):
        is_member = np.isin(list_of[:, 0], lists)
        members = np.flatnonzero(is_member)
        best, best_scores = brute_force(
            vectors[members], queries[row : row + 1], 300, db_type
        )
        num_found = best.shape[1]
        found = positions[row, :num_found]
        is_same = found == members[best[0]]
        assert is_same.mean() > 0.99  # distances may be tied in float32
        found_scores = scores[row, :num_found]
        np.testing.assert_allclose(found_scores, best_scores[0], rtol=1e-5, atol=1e-6)
        assert (positions[row, num_found:] == -1).all()
        assert np.isinf(scores[row, num_found:]).all()


def test_float16_vectors_are_stored_without_loss():
    vectors = clustered(1500).astype(np.float16)
    index = build(vectors).index
    assert isinstance(index, faiss.IndexIVFScalarQuantizer)
    assert index.code_size == 2 * DIM
    stored = index.reconstruct_n(0, len(vectors))
    assert np.array_equal(stored, vectors.astype(np.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
def test_gpu_and_cpu_find_the_same_neighbours(db_type):
    vectors = clustered(3000).astype(np.float16)
    queries = vectors[:300]
    on_gpu = build(vectors, db_type=db_type, device=torch.device("cuda"))
    on_cpu = build(vectors, db_type=db_type, nprobe=8)
    positions, scores = on_gpu.search(queries, 50)
    expected, expected_scores = on_cpu.search(queries, 50)
    assert np.array_equal(positions, expected)
    assert np.array_equal(scores, expected_scores)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("settings", [{"nprobe": 8}, {"db_type": "exact"}])
def test_vectors_and_queries_may_be_read_only(settings):
    vectors = clustered(300).astype(np.float16)
    vectors.setflags(write=False)
    queries = vectors[:40]
    positions, _ = build(vectors, **settings).search(queries, 9)
    expected, _ = brute_force(vectors, queries, 9)
    assert np.array_equal(positions, expected)


@pytest.fixture
def threads():
    """Returns a function that sets the number of threads of faiss until the end of the test."""
    before = faiss.omp_get_max_threads()
    yield faiss.omp_set_num_threads
    faiss.omp_set_num_threads(before)


SEARCHES = [{"cent": 16, "nprobe": 3}, {"db_type": "exact"}]


@pytest.fixture(params=SEARCHES)
def searched(request, threads):
    """Vectors, settings, and the 50 neighbours of the first 200 vectors with one thread."""
    threads(1)
    vectors = clustered(3000, noise=0.9).astype(np.float16)
    retriever = build(vectors, **request.param)
    return vectors, request.param, retriever.search(vectors[:200], 50)


@pytest.mark.parametrize("num_threads", [2, 5])
def test_neighbours_do_not_depend_on_the_number_of_threads(
    searched, threads, num_threads
):
    vectors, settings, expected = searched
    threads(num_threads)
    positions, scores = build(vectors, **settings).search(vectors[:200], 50)
    assert np.array_equal(positions, expected.positions_mk)
    assert np.array_equal(scores, expected.scores_mk)


def test_neighbours_do_not_depend_on_the_size_of_blocks(searched):
    vectors, settings, expected = searched
    retriever = build(vectors, **settings, max_distances=1000)
    positions, scores = retriever.search(vectors[:200], 50)
    assert np.array_equal(positions, expected.positions_mk)
    assert np.array_equal(scores, expected.scores_mk)


def test_neighbours_do_not_depend_on_other_queries(searched):
    vectors, settings, expected = searched
    retriever = build(vectors, **settings)
    for row in range(0, 200, 4):
        positions, scores = retriever.search(vectors[row : row + 1], 50)
        assert np.array_equal(positions[0], expected.positions_mk[row])
        assert np.array_equal(scores[0], expected.scores_mk[row])


@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 5, "nprobe": 5}])
def test_equally_near_vectors_are_ordered_by_position(settings):
    order = np.random.default_rng(0).permutation(200)
    vectors = np.repeat(clustered(50), 4, axis=0)[order]
    positions, distances = build(vectors, **settings).search(vectors[:20], 4)
    for query, found in enumerate(positions):
        is_equal = (vectors == vectors[query]).all(axis=1)
        assert np.array_equal(found, np.flatnonzero(is_equal))
    assert not distances.any()


def test_auto_fills_every_list_and_reaches_the_recall_with_the_fewest_probes(caplog):
    vectors = clustered(2000, clusters=100, noise=1.5)
    queries = vectors[::10]
    retriever = build(vectors, cent=40)
    with caplog.at_level(logging.INFO):
        positions, _ = retriever.search(queries, 150)
    assert (positions >= 0).all()
    expected, _ = brute_force(vectors, queries, 150)
    recall = share_found(positions, expected)
    assert 0.95 <= recall < 1  # measured: 0.953; all lists would give 1
    # The sample contains all queries.
    assert retriever.last_recall == pytest.approx(recall)
    num_probes = retriever.last_nprobe
    report = f"neighbours of 200 queries: {num_probes} of 40 lists, recall@150 {recall:.3f} on a "
    assert report in caplog.text

    with_less = build(vectors, cent=40, nprobe=num_probes - 1)
    positions, _ = with_less.search(queries, 150)
    is_short = (positions < 0).any()
    assert is_short or share_found(positions, expected) < 0.95


@pytest.mark.parametrize("settings", [{}, {"nprobe": 1}, {"db_type": "exact"}])
def test_few_queries_and_more_neighbours_than_vectors(settings):
    vectors = clustered(60)
    retriever = build(vectors, cent=1, **settings)
    for num in (1, 3):
        positions, distances = retriever.search(vectors[:num], 100)
        assert distances.shape == (num, 100)
        everything = np.sort(positions[:, :60], axis=1)
        assert (everything == np.arange(60)).all()
        assert (positions[:, 60:] == -1).all()


def test_few_vectors_give_fewer_lists_without_printed_warnings(caplog, capfd):
    vectors = clustered(200)
    retriever = build(vectors, cent=64)
    assert retriever.num_lists == 200 // 39
    positions, _ = retriever.search(vectors, 20)
    assert (positions >= 0).all()
    (warning,) = (
        record for record in caplog.records if record.levelno == logging.WARNING
    )
    assert "200 vectors are too few to train 64 lists" in warning.message
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
    with pytest.raises(
        ConfigError, match=r"divisible by 32, but it is 100; use `flatl2`"
    ):
        VectorRetriever(100, 8, db_type="pq")
    with pytest.raises(DataError, match="at least 256 vectors, but on 96"):
        build(clustered(100), db_type="pq")
    with pytest.raises(DataError, match="no vectors"):
        VectorRetriever(DIM, 8).finalize_training()


GPU = torch.device("cuda")  # no GPU is used


@pytest.mark.parametrize(
    ("settings", "is_exact"),
    [
        ({}, False),
        ({"db_type": "exact"}, True),
        ({"device": GPU}, True),
        ({"device": GPU, "nprobe": 1}, False),
        ({"device": GPU, "db_type": "pq"}, False),
    ],
)
def test_settings_that_make_the_search_exact(settings, is_exact):
    assert VectorRetriever(DIM, 8, **settings).is_exact == is_exact
