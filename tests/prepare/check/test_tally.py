"""Tests of running histograms, on values whose statistics are known."""

import numpy as np

from mmpt.prepare.check.tally import Tally


def test_values_outside_the_edges_count_in_the_first_or_last_bin():
    tally = Tally(np.array([0.0, 1.0, 2.0]))
    tally.add(np.array([-5.0, 0.5, 9.0]))
    assert tally.counts.tolist() == [2, 1]


def test_share_and_median_of_some_values():
    tally = Tally(np.arange(0, 101, dtype=float))
    tally.add(np.array([5.5] * 6 + [70.5] * 3 + [90.5]))
    assert tally.share_and_median() == (1, 5.5)
    assert tally.share_and_median(low=50) == (0.4, 70.5)
    assert tally.share_and_median(low=50, high=80) == (0.3, 70.5)


def test_the_share_is_zero_without_values():
    empty = Tally(np.arange(0, 101, dtype=float))
    share, _ = empty.share_and_median()
    assert share == 0
    empty.add(np.array([5.5]))
    share, _ = empty.share_and_median(low=95)
    assert share == 0


def test_merged_tallies_equal_one_tally_of_all_values():
    values = np.random.default_rng(0).normal(size=(3, 50))
    edges = np.linspace(-2, 2, 9)
    whole = Tally(edges)
    whole.add(values)
    merged = Tally(edges)
    for part in values:
        tally = Tally(edges)
        tally.add(part)
        merged.merge(tally)
    merged.merge(Tally(edges))
    assert merged.counts.tolist() == whole.counts.tolist()
    assert (merged.count, merged.low, merged.high) == (150, values.min(), values.max())
    np.testing.assert_allclose(merged.mean, values.mean(), rtol=1e-12)  # measured 0
