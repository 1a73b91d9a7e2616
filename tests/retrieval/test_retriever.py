"""The index against brute force written here, and what may not change its answers."""

import json
import logging

import faiss
import numpy as np
import pytest

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval import VectorRetriever
from mmpt.retrieval.nprobe import probes_for_full, probes_for_recall

DIM = 32


def clustered(num, seed=0, clusters=20, noise=0.5, dim=DIM):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, dim))
    return (centres[rng.integers(0, clusters, num)] + noise * rng.standard_normal((num, dim))).astype(np.float32)


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
def test_few_lists_equal_faiss_itself(nprobe):
    vectors = clustered(1500)
    retriever = build(vectors, nprobe=nprobe)
    positions, distances = retriever.search(vectors[:100], 300)
    retriever.index.nprobe = nprobe
    for query in range(100):
        expected_distances, expected = retriever.index.search(vectors[query : query + 1], 300)
        assert np.array_equal(positions[query], expected[0])
        found = expected[0] >= 0
        assert np.array_equal(distances[query][found], expected_distances[0][found])
        assert np.isinf(distances[query][~found]).all()


def test_answers_do_not_depend_on_grouping_or_threads():
    vectors = clustered(3000, dim=64)
    threads = faiss.omp_get_max_threads()
    answers = []
    for num_threads in (1, 2):
        faiss.omp_set_num_threads(num_threads)
        retriever = build(vectors, cent=16, nprobe=3)
        answers.append(retriever.search(vectors[:200], 50))
        one_by_one = [retriever.search(vectors[row : row + 1], 50)[0][0] for row in range(200)]
        assert np.array_equal(answers[-1][0], one_by_one)
    faiss.omp_set_num_threads(threads)
    assert np.array_equal(answers[0][0], answers[1][0])
    assert np.array_equal(answers[0][1], answers[1][1])


def test_chunks_change_nothing(monkeypatch):
    vectors = clustered(1500)
    retriever = build(vectors, nprobe=4)
    whole = retriever.search(vectors, 50)
    monkeypatch.setattr("mmpt.retrieval.retriever.chunk_rows", lambda *_: 100)
    monkeypatch.setattr("mmpt.retrieval.listscan.MAX_BLOCK", 1000)
    parts = retriever.search(vectors, 50)
    assert np.array_equal(whole[0], parts[0])
    assert np.array_equal(whole[1], parts[1])


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


def test_probes_for_full_by_hand():
    order = np.array([[0, 1, 2, 3], [2, 3, 1, 0]])
    sizes = np.array([5, 1, 2, 4])
    for k, expected in [(1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (8, 4), (12, 4), (99, 4)]:
        assert probes_for_full(lambda num_probes: order[:, :num_probes], sizes, k) == expected


def test_probes_for_recall_by_hand():
    order = np.array([[0, 1, 2, 3], [2, 3, 1, 0]])
    list_of = np.array([0, 1, 2, 3])
    neighbours = np.array([[0, 1], [2, -1]])  # met at places 0, 1 and 0
    assert probes_for_recall(order, neighbours, list_of, 2 / 3) == 1
    assert probes_for_recall(order, neighbours, list_of, 0.7) == 2


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


def test_vectors_added_later_are_found():
    vectors = clustered(600)
    retriever = VectorRetriever(DIM, 8, nprobe=8)
    retriever.add(vectors[:500], [f"v{number}" for number in range(500)])
    retriever.finalize_training()
    retriever.search(vectors[:1], 1)
    retriever.add(vectors[450:], [f"v{number}" for number in range(450, 600)])
    assert len(retriever) == retriever.index.ntotal == 600
    assert np.array_equal(retriever.search(vectors, 5)[0], brute_force(vectors, vectors, 5)[0])


@pytest.mark.parametrize("db_type", ["flatl2", "innerproduct", "pq", "exact"])
def test_save_and_load(tmp_path, db_type):
    vectors = clustered(600)
    retriever = build(vectors, db_type=db_type, nprobe=2)
    retriever.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faiss_ids.json", "faiss_idx"]
    loaded = VectorRetriever.load(tmp_path)
    assert loaded.ids == retriever.ids
    for ours, theirs in zip(retriever.search(vectors[:50], 20), loaded.search(vectors[:50], 20), strict=True):
        assert np.array_equal(ours, theirs)
    loaded.add(vectors[:1], ["v0"])
    assert len(loaded) == 600


def test_damaged_index_is_refused(tmp_path):
    build(clustered(300)).save(tmp_path)
    table = json.loads((tmp_path / "faiss_ids.json").read_text())
    table["ids"].pop()
    (tmp_path / "faiss_ids.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match="names 299 vectors"):
        VectorRetriever.load(tmp_path)
    (tmp_path / "faiss_idx").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable index"):
        VectorRetriever.load(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        VectorRetriever.load(tmp_path / "elsewhere")


def test_bad_settings_are_named_together():
    with pytest.raises(ConfigError) as caught:
        VectorRetriever(768, 0, db_type="hnsw", nprobe=0)
    assert len(caught.value.problems) == 3
    with pytest.raises(ConfigError, match="divisible by 32, but it is 100"):
        VectorRetriever(100, 8, db_type="pq")


def test_nothing_to_search_or_to_train():
    with pytest.raises(DataError, match="at least 256 vectors, but on 96"):
        build(clustered(100), db_type="pq")
    with pytest.raises(DataError, match="no vectors"):
        VectorRetriever(DIM, 8).finalize_training()
