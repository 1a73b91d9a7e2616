"""Ranks and recalls against a plain sort, the rule for ties, and chance against a simulation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmpt.evaluators.functional import (
    chance_metrics,
    ranks_from_scores,
    ranks_from_vectors,
    retrieval_metrics,
    shared_credit,
)

# Small whole numbers. Many are equal, and float32 represents them and their sums exactly.
SQUARES = st.integers(1, 12).flatmap(
    lambda num: arrays(np.float32, (num, num), elements=st.integers(-4, 4))
)


@st.composite
def distinct_scores(draw: st.DrawFn) -> np.ndarray:
    """Returns a square matrix of different scores."""
    num = draw(st.integers(1, 8))
    order = draw(st.permutations(range(num * num)))
    return np.array(order, dtype=np.float32).reshape(num, num)


@given(SQUARES)
def test_ranks_equal_a_stable_sort(scores: np.ndarray) -> None:
    """Ties are ordered by column."""
    expected = []
    for own, row in enumerate(scores):
        columns = sorted(range(len(row)), key=lambda column: -row[column])
        expected.append(columns.index(own))
    assert ranks_from_scores(scores).tolist() == expected


@given(SQUARES, st.integers(-100, 100), st.integers(1, 50))
def test_ranks_do_not_change_with_the_scale_of_scores(
    scores: np.ndarray, shift: int, factor: int
) -> None:
    expected = ranks_from_scores(scores)
    assert np.array_equal(ranks_from_scores(factor * scores + shift), expected)
    assert np.array_equal(ranks_from_scores(np.exp(scores)), expected)


@given(distinct_scores(), st.data())
def test_shuffling_the_pairs_shuffles_their_ranks(
    scores: np.ndarray, data: Any
) -> None:
    order = np.array(data.draw(st.permutations(range(len(scores)))))
    shuffled = scores[order][:, order]
    ranks = ranks_from_scores(scores)
    assert np.array_equal(ranks_from_scores(shuffled), ranks[order])


@given(SQUARES)
def test_recall_increases_with_k_and_the_median_rank_is_valid(
    scores: np.ndarray,
) -> None:
    result = retrieval_metrics(ranks_from_scores(scores))
    assert 0 <= result["R1"] <= result["R5"] <= result["R10"] <= 1
    assert 1 <= result["MR"] <= len(scores)


@given(SQUARES, st.data())
def test_credits_sum_to_one_and_are_shuffled_with_the_choices(
    scores: np.ndarray, data: Any
) -> None:
    def credits_of(scores: np.ndarray) -> np.ndarray:
        """Returns the credit of every column as the target of all rows."""
        targets = range(len(scores))
        return np.array(
            [shared_credit(scores, np.full(len(scores), one)) for one in targets]
        )

    credit = credits_of(scores)
    np.testing.assert_allclose(credit.sum(axis=0), 1, rtol=1e-12)
    order = data.draw(st.permutations(range(len(scores))))
    assert np.array_equal(credits_of(scores[:, order]), credit[order])


@pytest.mark.parametrize("value", [0.0, 7.5, float("inf"), -float("inf")])
@pytest.mark.parametrize("num", [8, 20, 101])
def test_a_collapsed_model_is_exactly_at_chance(num: int, value: float) -> None:
    scores = np.full((num, num), value, dtype=np.float32)
    ranks = ranks_from_scores(scores)
    assert retrieval_metrics(ranks) == chance_metrics(num)


def test_a_nan_never_improves_a_rank() -> None:
    scores = np.eye(4, dtype=np.float32)
    scores[1, 1] = np.nan  # the score of the pair: is ranked last
    scores[2, 0] = np.nan  # another score: is ranked higher
    assert ranks_from_scores(scores).tolist() == [0, 3, 1, 0]


@pytest.mark.parametrize("num", [3, 7, 40])
def test_chance_is_the_mean_over_random_scores(num: int) -> None:
    rng = np.random.default_rng(num)
    runs = []
    for _ in range(2000):
        ranks = ranks_from_scores(rng.normal(size=(num, num)))
        runs.append(retrieval_metrics(ranks))
    for name, expected in chance_metrics(num).items():
        values = np.array([run[name] for run in runs])
        # Four standard errors; the worst is 2.8.
        error = 4 * values.std() / np.sqrt(len(values))
        assert values.mean() == pytest.approx(expected, abs=error + 1e-12), name


def test_equal_choices_share_the_credit_and_unknown_ones_get_none() -> None:
    certain = np.eye(5)[[1, 2, 3, 4]]
    assert shared_credit(certain, np.array([1, 0, 3, 0])).tolist() == [1, 0, 1, 0]
    scores = np.array(
        [[1, 2, 2, 0], [1, 2, 2, 0], [3, 2, 2, 0], [1.0, 2, 2, 0], [2, 2, 2, 2]]
    )
    assert shared_credit(scores, np.array([2, 0, 0, 7, 3])).tolist() == [
        0.5,
        0,
        1,
        0,
        0.25,
    ]


@pytest.mark.parametrize("scores_per_chunk", [1, 23 * 5, 1 << 20])
def test_ranks_of_vectors_equal_the_ranks_of_the_whole_matrix(
    scores_per_chunk: int,
) -> None:
    rng = np.random.default_rng(3)
    # Whole numbers: many exact ties.
    queries, candidates = rng.integers(-2, 3, (2, 23, 4)).astype(np.float32)
    expected = ranks_from_scores(queries @ candidates.T)
    ranks = ranks_from_vectors(queries, candidates, scores_per_chunk)
    assert ranks.tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 8  # the case is not trivial
