"""Saved indexes: results against brute force, recall of the types, mapped files, and errors."""

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.retrieval.saved_index import (
    SavedIndex,
    default_type,
    find_mapping,
    map_vectors,
    request_rows,
)
from tests.support.vectors import brute_force, clustered, share_found


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """4,000 vectors in clusters, rounded to float16."""
    return clustered(4000, noise=1.0).astype(np.float16)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    """Vectors that are not in the index."""
    return clustered(30, seed=7, noise=1.0)


@pytest.mark.parametrize("num_candidates", [10, 1000])
def test_flat_finds_the_neighbours_of_brute_force(vectors, queries, num_candidates):
    index = SavedIndex.build(vectors, "Flat")
    found = index.search(queries, 10, num_candidates)
    positions, scores = brute_force(vectors, queries, 10, "innerproduct")
    np.testing.assert_array_equal(found.positions_mk, positions)
    np.testing.assert_allclose(found.scores_mk, scores, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index_type", "least"),
    [("SQ8", 0.99), ("HNSW32", 0.95), ("PQ8", 0.9), ("IVF32,SQ8", 0.5), (None, 0.99)],
)
def test_recall_of_the_types(vectors, queries, index_type, least):
    if index_type is None:
        index_type = default_type(len(vectors), vectors.shape[1], max_flat=100)
        assert index_type == "IVF1,PQ8x4fs"
    index = SavedIndex.build(vectors, index_type)
    found = index.search(queries, 10)
    positions, _ = brute_force(vectors, queries, 10, "innerproduct")
    assert share_found(found.positions_mk, positions) >= least


def test_the_default_type_depends_on_the_number_of_vectors():
    assert default_type(1, 768) == "Flat"
    assert default_type(100_000, 768) == "Flat"
    assert default_type(1_000_000, 768) == "IVF1,PQ192x4fs"
    assert default_type(1_000_000, 102) == "SQ8"


@pytest.mark.parametrize("index_type", ["Flat", "IVF1,PQ8x4fs", "IVF16,SQ8"])
def test_a_loaded_and_an_extended_index_give_the_same_results(
    vectors, queries, index_type, tmp_path
):
    (tmp_path / "vectors.f16").write_bytes(vectors.tobytes())
    mapped = map_vectors(tmp_path / "vectors.f16", vectors.shape[1])
    half = SavedIndex.build(mapped[:2000], index_type)
    half.save(tmp_path / "half.faiss")
    expected = half.search(queries, 5)
    loaded = SavedIndex.load(tmp_path / "half.faiss", mapped[:2000])
    found = loaded.search(queries, 5)
    np.testing.assert_array_equal(found.positions_mk, expected.positions_mk)
    np.testing.assert_array_equal(found.scores_mk, expected.scores_mk)

    extended = SavedIndex.load(tmp_path / "half.faiss", mapped[:2000], is_mapped=False)
    extended.extend(mapped)
    extended.save(tmp_path / "whole.faiss")
    whole = SavedIndex.load(tmp_path / "whole.faiss", mapped)
    positions, _ = brute_force(vectors, queries, 5, "innerproduct")
    assert (positions >= 2000).any()
    # All lists are searched, so that only the codes can cause errors.
    if index_type.startswith("IVF"):
        whole.index.nprobe = 16
    assert share_found(whole.search(queries, 5).positions_mk, positions) > 0.95


def test_rows_of_a_mapped_file_are_requested(vectors, tmp_path):
    (tmp_path / "vectors.f16").write_bytes(vectors.tobytes())
    mapped = map_vectors(tmp_path / "vectors.f16", vectors.shape[1])
    mapping = find_mapping(mapped)
    assert bytes(mapping) == vectors.tobytes()
    assert find_mapping(mapped[:2000]) is mapping
    assert find_mapping(vectors) is find_mapping(vectors[:2000]) is None
    for array in (mapped, mapped[:2000], vectors):
        request_rows(array, np.array([0, 7, len(array) - 1]))


def test_equal_scores_are_ordered_by_position():
    vectors = np.ones((6, 4), dtype=np.float16)
    vectors[4] = 2
    found = SavedIndex.build(vectors, "Flat").search(np.ones((1, 4)), 10)
    assert found.positions_mk.tolist() == [[4, 0, 1, 2, 3, 5]]


def test_missing_neighbours_are_minus_one(vectors, queries):
    index = SavedIndex.build(vectors[:200], "IVF20,Flat")
    index.index.nprobe = 1
    found = index.search(queries, 150)
    assert (found.positions_mk[:, -1] == -1).all()
    assert np.isneginf(found.scores_mk[:, -1]).all()


@pytest.mark.parametrize(
    ("index_type", "reason"),
    [
        ("Foo", "could not parse index string Foo"),
        ("PQ5", "should be a multiple of"),
        ("IVF100,Flat", "Number of training points (50)"),
    ],
)
def test_a_type_that_does_not_fit_is_an_error(vectors, index_type, reason):
    with pytest.raises(DataError, match="the type of index must be one") as err:
        SavedIndex.build(vectors[:50], index_type)
    assert reason in str(err.value)
    assert ".cpp" not in str(err.value)


def test_a_damaged_file_and_a_file_of_other_vectors_are_errors(vectors, tmp_path):
    path = tmp_path / "a.faiss"
    with pytest.raises(DataError, match=r"a\.faiss: no such file"):
        SavedIndex.load(path, vectors)
    SavedIndex.build(vectors, "Flat").save(path)
    with pytest.raises(DataError, match="an index of 10 vectors of 32 numbers, but is"):
        SavedIndex.load(path, vectors[:10])
    path.write_bytes(path.read_bytes()[:1000])
    for is_mapped in (True, False):
        with pytest.raises(DataError, match="not a complete faiss index"):
            SavedIndex.load(path, vectors, is_mapped=is_mapped)


def test_an_empty_file_has_no_vectors(tmp_path):
    (tmp_path / "vectors.f16").touch()
    assert map_vectors(tmp_path / "vectors.f16", 32).shape == (0, 32)
