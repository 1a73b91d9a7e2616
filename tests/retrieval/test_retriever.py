"""The index against brute force written here, and what may not change its answers."""

import json
import logging

import faiss
import numpy as np
import pytest
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval import VectorRetriever
from mmpt.retrieval.listscan import ListScan
from mmpt.retrieval.retriever import _pair_costs

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
    assert retriever.inverted_file.tools.sketcher.size(96) == 17
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
        return _pair_costs(queries, rows, *args, is_l2=is_l2)

    monkeypatch.setattr("mmpt.retrieval.retriever._pair_costs", counted)
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
    assert retriever.inverted_file.tools.sketcher.size(96) < 48
    products = vectors[:80].astype(np.float64) @ vectors.T
    assert np.array_equal(retriever.search(vectors[:80], 40)[0], np.argsort(-products, axis=1, kind="stable")[:, :40])


@pytest.mark.parametrize("settings", [{"db_type": "exact"}, {"cent": 4, "nprobe": 4}])
def test_more_equal_vectors_than_neighbours(settings):
    vectors = np.repeat(low_rank(3, dim=64), 300, axis=0)
    positions, distances = build(vectors, **settings).search(vectors[::300], 50)
    assert np.array_equal(positions, np.arange(50) + 300 * np.arange(3)[:, None])
    assert not distances.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("make", [clustered, low_rank])
def test_vectors_stay_where_they_are(tmp_path, make, dtype):
    vectors = make(1500).astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    expected = build(vectors.astype(np.float32), nprobe=3).search(vectors[:90], 30)
    in_file = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for given, bank_dir in ((vectors, None), (in_file, None), (in_file, tmp_path / "bank")):
        retriever = build(given, nprobe=3, bank_dir=bank_dir)
        found = retriever.search(vectors[:90], 30)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])
        lists = retriever.inverted_file.lists
        assert lists.vectors is given
        assert isinstance(lists.sketches, np.memmap) == (make is low_rank and bank_dir is not None)
    assert not any((tmp_path / "bank").glob("*"))


def test_vectors_in_parts_with_known_ids_between():
    vectors = clustered(600)
    retriever = VectorRetriever(DIM, 8, nprobe=8)
    for begin, end in ((0, 200), (150, 400), (390, 600)):
        retriever.add(vectors[begin:end], [f"v{number}" for number in range(begin, end)])
    retriever.finalize_training()
    assert retriever.ids == [f"v{number}" for number in range(600)]
    assert np.array_equal(retriever.search(vectors, 5)[0], brute_force(vectors, vectors, 5)[0])


def test_ties_go_to_the_lower_position():
    vectors = np.repeat(clustered(50), 4, axis=0)[np.random.default_rng(0).permutation(200)]
    positions, _ = build(vectors, cent=5, nprobe=5).search(vectors[:20], 4)
    for query, found in enumerate(positions):
        assert found.tolist() == np.flatnonzero((vectors == vectors[query]).all(axis=1)).tolist()


def test_planted_clusters_come_back():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 40)[rng.permutation(1200)]
    vectors = (10 * rng.standard_normal((30, DIM))[labels] + rng.standard_normal((1200, DIM))).astype(np.float32)
    positions, _ = build(vectors, cent=12).search(vectors[:100], 40)
    assert np.array_equal(np.sort(positions, axis=1), [np.flatnonzero(labels == label) for label in labels[:100]])


def test_auto_fills_every_list_and_reaches_the_recall(caplog):
    vectors = clustered(2000, clusters=100, noise=1.5)
    with caplog.at_level(logging.INFO):
        positions, _ = build(vectors, cent=40).search(vectors[::10], 150)
    assert (positions >= 0).all()
    expected, _ = brute_force(vectors, vectors[::10], 150)
    recall = np.mean([len(np.intersect1d(a, b)) / 150 for a, b in zip(positions, expected, strict=True)])
    assert 0.95 <= recall < 1  # measured: 0.953; all lists would give 1
    (line,) = (record.message for record in caplog.records if "nprobe auto" in record.message)
    num_probes = int(line.split()[2])
    one_less = build(vectors, cent=40, nprobe=num_probes - 1).search(vectors[::10], 150)[0]
    few = np.mean([len(np.intersect1d(a, b)) / 150 for a, b in zip(one_less, expected, strict=True)])
    assert few < 0.95 or (one_less < 0).any(), "fewer probes would have done"


def test_fixed_nprobe_may_leave_lists_short():
    vectors = clustered(400)
    positions, distances = build(vectors, nprobe=1).search(vectors, 200)
    assert (positions[:, -1] == -1).any()
    assert np.array_equal(positions == -1, np.isinf(distances))


def test_more_neighbours_than_vectors():
    vectors = clustered(60)
    positions, _ = build(vectors, cent=2).search(vectors[:3], 100)
    assert (np.sort(positions[:, :60], axis=1) == np.arange(60)).all()
    assert (positions[:, 60:] == -1).all()


def known_lists():
    """Vectors in 4 lists on a line, their centroids, and queries whose 100 neighbours lie 80, 15, 5, 0 in these."""
    centroids = np.zeros((4, DIM), np.float32)
    centroids[:, 0] = 0, 10, 21, 33
    near = np.concatenate([np.linspace(1, 4, 80), np.linspace(6, 10, 15), np.linspace(16, 18, 5), np.full(100, 33)])
    vectors = np.zeros((400, DIM), np.float32)
    vectors[:200, 0] = near
    vectors[200:, 1] = 31  # in the first list, farther than the neighbours in the third
    queries = np.zeros((40, DIM), np.float32)
    queries[:, 2] = np.linspace(0, 1, 40)
    return vectors, centroids, queries


@pytest.mark.parametrize(
    ("recall", "probes", "reached"), [(0.8, 1, 0.8), (0.81, 2, 0.95), (0.95, 2, 0.95), (0.951, 3, 1), (1, 4, None)]
)
def test_auto_takes_the_probes_that_the_recall_needs(caplog, recall, probes, reached):
    vectors, centroids, queries = known_lists()
    retriever = VectorRetriever(DIM, 4, recall=recall)
    retriever.add(vectors, [str(number) for number in range(400)])
    retriever.finalize_training(centroids)
    with caplog.at_level(logging.INFO):
        retriever.search(queries, 100)
    assert retriever.last_nprobe == probes
    assert retriever.last_recall == reached
    said = f"neighbours of 40 queries: recall@100 {reached:.3f} on 40 queries, {probes} of 4 lists, " if reached else ""
    assert said in caplog.text


def test_few_vectors_make_fewer_lists(caplog, capfd):
    vectors = clustered(200)
    retriever = build(vectors, cent=64)
    assert retriever.num_lists == 200 // 39
    assert sum("too few" in record.message for record in caplog.records) == 1
    assert "WARNING" not in capfd.readouterr().err  # faiss writes its warnings there
    assert (retriever.search(vectors, 20)[0] >= 0).all()


def test_pq_finds_most_neighbours(capfd):
    vectors = clustered(1500, dim=64)
    retriever = build(vectors, cent=16, db_type="pq")
    positions, _ = retriever.search(vectors[:50], 50)
    expected, _ = brute_force(vectors, vectors[:50], 50)
    recall = np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(positions, expected, strict=True)])
    assert recall > 0.8  # measured: 0.94; at random: 0.03
    assert "WARNING" not in capfd.readouterr().err


@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct", "pq", "exact"])
def test_save_and_load(tmp_path, db_type):
    vectors = clustered(600)
    retriever = build(vectors, db_type=db_type, nprobe=2)
    retriever.save(tmp_path)
    files = ["faiss_ids.json", "faiss_idx"] + ["vectors.npy"] * (db_type != "pq")
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    loaded = VectorRetriever.load(tmp_path)
    assert loaded.ids == retriever.ids
    for ours, theirs in zip(retriever.search(vectors[:50], 20), loaded.search(vectors[:50], 20), strict=True):
        assert np.array_equal(ours, theirs)


def test_damaged_index_is_refused(tmp_path):
    build(clustered(300)).save(tmp_path)
    table = json.loads((tmp_path / "faiss_ids.json").read_text())
    table["ids"].pop()
    (tmp_path / "faiss_ids.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match="names 299 vectors"):
        VectorRetriever.load(tmp_path)
    with (tmp_path / "vectors.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match="not a readable index"):
        VectorRetriever.load(tmp_path)
    (tmp_path / "faiss_idx").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable index"):
        VectorRetriever.load(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        VectorRetriever.load(tmp_path / "elsewhere")


def test_bad_settings_are_named_together():
    with pytest.raises(ConfigError) as caught:
        VectorRetriever(768, 0, db_type="hnsw", nprobe=0, recall=0)
    assert len(caught.value.problems) == 4
    with pytest.raises(ConfigError, match="`recall` must be above 0 and at most 1, but is 95"):
        VectorRetriever(768, 8, recall=95)
    with pytest.raises(ConfigError, match="divisible by 32, but it is 100"):
        VectorRetriever(100, 8, db_type="pq")


def test_nothing_to_search_or_to_train():
    with pytest.raises(DataError, match="at least 256 vectors, but on 96"):
        build(clustered(100), db_type="pq")
    with pytest.raises(DataError, match="no vectors"):
        VectorRetriever(DIM, 8).finalize_training()


def test_a_save_that_was_cut_short_is_no_index(tmp_path, monkeypatch):
    build(clustered(300)).save(tmp_path)
    monkeypatch.setattr(np, "save", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(clustered(300, seed=1)).save(tmp_path)
    with pytest.raises(DataError, match=r"faiss_ids\.json: no such file"):
        VectorRetriever.load(tmp_path)


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


def test_which_searches_are_exact():
    accelerator = torch.device("cuda")  # named only
    assert VectorRetriever(DIM, 8, db_type="exact").is_exact
    assert VectorRetriever(DIM, 8, device=accelerator).is_exact
    assert not VectorRetriever(DIM, 8, device=accelerator, nprobe=1).is_exact
    assert not VectorRetriever(DIM, 8, device=accelerator, db_type="pq").is_exact
    assert not VectorRetriever(DIM, 8, device=torch.device("cpu")).is_exact
