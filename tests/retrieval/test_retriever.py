"""The index as a whole: what may be added, the probes that `auto` takes, codes, files, and mistakes."""

import json
import logging

import numpy as np
import pytest
import torch

from mmpt.errors import ConfigError, DataError
from mmpt.retrieval import VectorRetriever
from tests.vectors import DIM, brute_force, build, clustered, low_rank


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("make", [clustered, low_rank])
def test_vectors_stay_where_they_are(tmp_path, make, dtype):
    vectors = make(1500).astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    expected = build(vectors.astype(np.float32), nprobe=3).search(vectors[:90], 30)
    in_file = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for given, sketch_dir in ((vectors, None), (in_file, None), (in_file, tmp_path / "bank")):
        retriever = build(given, nprobe=3, sketch_dir=sketch_dir)
        found = retriever.search(vectors[:90], 30)
        assert np.array_equal(found[0], expected[0])
        assert np.array_equal(found[1], expected[1])
        lists = retriever.inverted_file.lists
        assert lists.vectors is given
        assert isinstance(lists.sketches, np.memmap) == (make is low_rank and sketch_dir is not None)
    assert not any((tmp_path / "bank").glob("*"))


def test_vectors_in_parts_with_known_ids_between():
    vectors = clustered(600)
    retriever = VectorRetriever(DIM, 8, nprobe=8)
    for begin, end in ((0, 200), (150, 400), (390, 600)):
        retriever.add(vectors[begin:end], [f"v{number}" for number in range(begin, end)])
    retriever.finalize_training()
    assert retriever.ids == [f"v{number}" for number in range(600)]
    assert np.array_equal(retriever.search(vectors, 5)[0], brute_force(vectors, vectors, 5)[0])


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


@pytest.mark.parametrize("nprobe", ["auto", 1])
def test_no_queries_have_no_neighbours(nprobe):
    positions, distances = build(clustered(400), cent=8, nprobe=nprobe).search(clustered(400)[:0], 5)
    assert positions.shape == distances.shape == (0, 5)


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


def test_which_searches_are_exact():
    accelerator = torch.device("cuda")  # named only
    assert VectorRetriever(DIM, 8, db_type="exact").is_exact
    assert VectorRetriever(DIM, 8, device=accelerator).is_exact
    assert not VectorRetriever(DIM, 8, device=accelerator, nprobe=1).is_exact
    assert not VectorRetriever(DIM, 8, device=accelerator, db_type="pq").is_exact
    assert not VectorRetriever(DIM, 8, device=torch.device("cpu")).is_exact
