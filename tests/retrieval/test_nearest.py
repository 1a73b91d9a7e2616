"""The k nearest so far against a sort of everything that was shown."""

import numpy as np
import pytest

from mmpt.retrieval.nearest import Nearest

MAX_POSITION = 2**31 - 1


@pytest.mark.parametrize("k", [1, 7, 60])
def test_shown_in_parts_equals_a_sort_of_all(k):
    rng = np.random.default_rng(0)
    costs = rng.standard_normal((5, 40)).round(1).astype(np.float32)  # many are equal, some negative, some -0
    positions = rng.permutation(40)
    nearest = Nearest(5, k)
    for columns in np.split(np.arange(40), [3, 4, 20]):
        for rows in ([0, 3], [1, 2, 4]):
            pairs = np.repeat(rows, len(columns)), np.tile(columns, len(rows))
            nearest.add(pairs[0], costs[pairs], positions[pairs[1]])
    found, found_costs = nearest.sorted()
    for row in range(5):
        expected = sorted(zip(costs[row].tolist(), positions.tolist(), strict=True))[:k]
        assert list(zip(found_costs[row, :40].tolist(), found[row, :40].tolist(), strict=True)) == expected
    assert (found[:, 40:] == -1).all()
    assert np.isinf(found_costs[:, 40:]).all()


def test_the_worst_is_the_bound_of_what_may_still_come_in():
    nearest = Nearest(2, 2)
    nearest.add(np.array([0, 0, 1]), np.array([3.0, -1.5, 2.0], np.float32), np.array([5, MAX_POSITION, 0]))
    assert nearest.worst(np.array([0, 1])).tolist() == [3, np.inf]
    assert nearest.unfilled(np.array([1, 0])).tolist() == [0]
    nearest.add(np.array([0]), np.array([3.0], np.float32), np.array([4]))
    assert nearest.sorted()[0].tolist() == [[MAX_POSITION, 4], [0, -1]]


def test_nothing_to_add():
    nearest = Nearest(1, 1)
    nearest.add(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    assert nearest.sorted()[0].tolist() == [[-1]]
