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
    assert probes_for_recall(order, neighbours, list_of, 2 / 3, 2) == 1
    assert probes_for_recall(order, neighbours, list_of, 0.7, 2) == 2
    # of 4 queries: share 2/3, residuals 1/3 and -1/3 of a mean of 1.5, standard error sqrt(1/2 * 2/9 / 2) / 1.5 = 0.157
    assert probes_for_recall(order, neighbours, list_of, 0.4, 4) == 1
    assert probes_for_recall(order, neighbours, list_of, 0.41, 4) == 2
    assert probes_for_recall(order, neighbours, list_of, 1, 4) == 2


def test_a_sample_reaches_the_recall_of_all_queries_19_times_of_20():
    rng = np.random.default_rng(0)
    num, k, num_lists, target = 5000, 20, 40, 0.9
    order = np.arange(num_lists)[None].repeat(num, axis=0)
    spread = rng.uniform(1, 12, (num, 1))  # queries differ in how far their neighbours lie
    places = np.minimum(rng.exponential(spread, (num, k)).astype(int), num_lists - 1)
    reached = []
    for _ in range(300):
        rows = rng.choice(num, 100, replace=False)
        probes = probes_for_recall(order[rows], places[rows], np.arange(num_lists), target, num)
        reached.append((places < probes).mean() >= target)
    assert np.mean(reached) > 0.95  # measured: 0.987; 0.833 without the standard errors


def test_share_found_by_hand():
    assert share_found(np.array([[3, 1, -1], [4, 5, 6]]), np.array([[1, 2, -1], [6, 5, 4]])) == 4 / 5
    assert share_found(np.array([[-1]]), np.array([[-1]])) == 1


def test_the_sample_is_seeded_and_never_larger_than_there_are_queries():
    assert sample_rows(3, 0).tolist() == [0, 1, 2]
    rows = sample_rows(10_000, 1)
    assert len(np.unique(rows)) == SAMPLE
    assert np.array_equal(rows, sample_rows(10_000, 1))
    assert not np.array_equal(rows, sample_rows(10_000, 2))
