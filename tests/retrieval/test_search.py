"""Neighbours against brute force and faiss, and what may not change them: blocks, threads, sketches, devices."""

import faiss
import numpy as np
import pytest
import torch

from mmpt.retrieval.faiss_calls import pair_costs
from mmpt.retrieval.listscan import ListScan
from tests.vectors import brute_force, build, clustered, low_rank


@pytest.mark.parametrize("settings", [{"nprobe": 8}, {"db_type": "exact"}])
def test_all_lists_equal_brute_force(settings):
    vectors = clustered(1500)
    positions, distances = build(vectors, **settings).search(vectors[::7], 40)
    expected, expected_distances = brute_force(vectors, vectors[::7], 40)
    assert np.array_equal(positions, expected)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-5, atol=1e-9)  # measured: 2e-7


def test_inner_product_equals_brute_force():
    vectors = clustered(600)
    positions, scores = build(vectors, nprobe=8, db_type="innerproduct").search(vectors[:50], 30)
    products = vectors[:50].astype(np.float64) @ vectors.T
    assert np.array_equal(positions, np.argsort(-products, axis=1)[:, :30])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :30], rtol=1e-5)  # measured: 2e-7


@pytest.mark.parametrize("nprobe", [1, 3])
@pytest.mark.parametrize("make", [clustered, low_rank])
def test_few_lists_equal_faiss_itself(make, nprobe):
    vectors = make(1500)
    retriever = build(vectors, nprobe=nprobe)
    positions, distances = retriever.search(vectors[:100], 300)
    quantiser = faiss.IndexFlatL2(vectors.shape[1])
    quantiser.add(retriever.inverted_file.centroids.vectors)
    index = faiss.IndexIVFFlat(quantiser, vectors.shape[1], retriever.num_lists)
    index.add(vectors)
    index.nprobe = nprobe
    for query in range(100):
        expected_distances, expected = index.search(vectors[query : query + 1], 300)
        assert np.array_equal(positions[query], expected[0])
        found = expected[0] >= 0
        assert np.array_equal(distances[query][found], expected_distances[0][found])
        assert np.isinf(distances[query][~found]).all()


@pytest.fixture
def threads():
    """Set torch's number of threads; the old number comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("make", [clustered, low_rank])
@pytest.mark.parametrize("settings", [{"cent": 16, "nprobe": 3}, {"db_type": "exact"}])
def test_answers_do_not_depend_on_grouping_or_threads(threads, make, settings):
    vectors = make(3000)
    answers = []
    for num_threads in (1, 2, 5):
        threads(num_threads)
        retriever = build(vectors, **settings)
        answers.append(retriever.search(vectors[:200], 50))
        assert torch.get_num_threads() == num_threads
    one_by_one = [retriever.search(vectors[row : row + 1], 50)[0][0] for row in range(0, 200, 4)]
    assert np.array_equal(answers[-1][0][::4], one_by_one)
    for positions, distances in answers[1:]:
        assert np.array_equal(answers[0][0], positions)
        assert np.array_equal(answers[0][1], distances)


@pytest.mark.parametrize("make", [clustered, low_rank])
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct", "exact"])
def test_blocks_and_memory_change_nothing(monkeypatch, make, db_type):
    vectors = make(1500)
    whole = build(vectors, nprobe=4, db_type=db_type).search(vectors, 50)
    monkeypatch.setattr("mmpt.retrieval.vectorlists.BLOCK_ROWS", 100)
    monkeypatch.setattr("mmpt.retrieval.listscan.BLOCK_ROWS", 100)
    monkeypatch.setattr("mmpt.retrieval.ivf.FILL_ROWS", 70)
    sizes, take_near = [], ListScan._take_near

    def counted(scan, costs, *args):
        sizes.append(costs.numel())
        take_near(scan, costs, *args)

    monkeypatch.setattr(ListScan, "_take_near", counted)
    parts = build(vectors, nprobe=4, db_type=db_type, memory_bytes=1 << 17).search(vectors, 50)
    assert max(sizes) * 32 <= 1 << 17, "a product of 32 bytes each beyond memory_bytes"
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])


@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 6, "nprobe": 6}])
@pytest.mark.parametrize("offset", [0, 30])
def test_sketches_lose_no_neighbour(settings, offset):
    vectors = low_rank(1200, dim=96) + np.float32(offset)
    retriever = build(vectors, **settings)
    assert retriever.inverted_file.settings.sketcher.size(96) == 17
    positions, distances = retriever.search(vectors[::5], 60)
    expected, _ = brute_force(vectors, vectors[::5], 60)
    true = np.square(vectors[::5][:, None] - vectors[positions], dtype=np.float64).sum(axis=2)
    np.testing.assert_allclose(distances, true, rtol=1e-5)  # measured: 2e-7
    assert np.array_equal(positions, expected)
    by_faiss = faiss.knn(vectors[::5], vectors, 60)[1]
    assert (np.sort(positions) == np.sort(by_faiss)).mean() > 0.99  # measured: 1; its products round otherwise


def test_where_sketches_rule_out_little_whole_products_do(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = low_rank(20, dim=96)[rng.integers(0, 20, 2000)] + 0.3 * rng.standard_normal((2000, 96), np.float32)
    expected, _ = brute_force(vectors, vectors[::20], 15)
    monkeypatch.setattr("mmpt.retrieval.vectorlists.BLOCK_ROWS", 200)
    scored: list[int] = []

    def counted(queries, rows, *args, is_l2):
        scored.append(len(rows))
        return pair_costs(queries, rows, *args, is_l2=is_l2)

    monkeypatch.setattr("mmpt.retrieval.retriever.pair_costs", counted)
    numbers = []
    for crowd in (2, 0.02):  # a share that is never passed, and one that is
        monkeypatch.setattr("mmpt.retrieval.listscan.CROWD", crowd)
        scored.clear()
        assert np.array_equal(build(vectors, db_type="exact").search(vectors[::20], 15)[0], expected)
        numbers.append(sum(scored))
    assert numbers[0] > 1.5 * numbers[1]  # measured: 1.8


def test_sketches_lose_no_product():
    vectors = low_rank(800, dim=96) + np.float32(0.5)
    retriever = build(vectors, cent=6, nprobe=6, db_type="innerproduct")
    assert retriever.inverted_file.settings.sketcher.size(96) < 48
    products = vectors[:80].astype(np.float64) @ vectors.T
    assert np.array_equal(retriever.search(vectors[:80], 40)[0], np.argsort(-products, axis=1, kind="stable")[:, :40])


@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 4, "nprobe": 4}])
def test_more_equal_vectors_than_neighbours(settings):
    vectors = np.repeat(low_rank(3, dim=64), 300, axis=0)
    positions, distances = build(vectors, **settings).search(vectors[::300], 50)
    assert np.array_equal(positions, np.arange(50) + 300 * np.arange(3)[:, None])
    assert not distances.any()


def test_ties_go_to_the_lower_position():
    vectors = np.repeat(clustered(50), 4, axis=0)[np.random.default_rng(0).permutation(200)]
    positions, _ = build(vectors, cent=5, nprobe=5).search(vectors[:20], 4)
    for query, found in enumerate(positions):
        assert found.tolist() == np.flatnonzero((vectors == vectors[query]).all(axis=1)).tolist()


@pytest.mark.parametrize("length", [1e-22, 1e-21, 1e-20])
@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 1, "nprobe": 1, "db_type": "innerproduct"}])
def test_sums_below_the_range_of_float32_lose_no_neighbour(settings, length):
    rng = np.random.default_rng(0)
    vectors = np.repeat((length * rng.standard_normal((40, 200))).astype(np.float32), 3, axis=0)
    queries = (length * rng.standard_normal((30, 200))).astype(np.float32)
    rows, columns = (indices.ravel() for indices in np.indices((30, 120)))
    costs = pair_costs(queries, rows, vectors, columns, is_l2=settings["db_type"] == "exact").reshape(30, 120)
    positions, _ = build(vectors, **settings).search(queries, 5)
    assert np.array_equal(positions, np.argsort(costs + 0.0, axis=1, kind="stable")[:, :5])


@pytest.mark.parametrize("make", [clustered, low_rank])
@pytest.mark.filterwarnings("error")
def test_queries_may_be_read_only(make):
    vectors = make(300)
    queries = vectors[:40].copy()
    queries.setflags(write=False)
    assert np.array_equal(build(vectors, nprobe=8).search(queries, 9)[0], brute_force(vectors, queries, 9)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [clustered, low_rank])
@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct"])
def test_an_accelerator_compares_all_and_answers_as_the_cpu(make, db_type):
    vectors = make(3000)
    device = torch.device("cuda")
    found = build(vectors, db_type=db_type, device=device, memory_bytes=1 << 20).search(vectors[:300], 50)
    expected = build(vectors, db_type=db_type, nprobe=8).search(vectors[:300], 50)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    few = [build(vectors, nprobe=2, device=place).search(vectors[:300], 50) for place in (device, None)]
    assert np.array_equal(few[0][0], few[1][0])
