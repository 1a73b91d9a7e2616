"""How many lists must be probed, by hand."""

import numpy as np

from mmpt.retrieval.nprobe import SAMPLE, probes_for_full, probes_for_recall, sample_rows, share_found


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


def test_share_found_by_hand():
    assert share_found(np.array([[3, 1, -1], [4, 5, 6]]), np.array([[1, 2, -1], [6, 5, 4]])) == 4 / 5
    assert share_found(np.array([[-1]]), np.array([[-1]])) == 1


def test_the_sample_is_seeded_and_never_larger_than_there_are_queries():
    assert sample_rows(3, 0).tolist() == [0, 1, 2]
    rows = sample_rows(10_000, 1)
    assert len(np.unique(rows)) == SAMPLE
    assert np.array_equal(rows, sample_rows(10_000, 1))
    assert not np.array_equal(rows, sample_rows(10_000, 2))
