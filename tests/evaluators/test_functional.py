"""Ranks and recalls against a sort written out, the tie rule, and chance against simulation."""

import numpy as np
import pytest

from mmpt.evaluators import functional
from mmpt.evaluators.functional import (
    chance_metrics,
    ranks_from_scores,
    ranks_from_vectors,
    retrieval_metrics,
    shared_credit,
)


def sorted_rank(row: np.ndarray, own: int) -> int:
    """Place of `own` in descending order, by sorting."""
    return sorted(range(len(row)), key=lambda column: -row[column]).index(own)


def test_ranks_equal_a_sort_when_there_are_no_ties() -> None:
    scores = np.random.default_rng(0).permutation(31 * 31).reshape(31, 31).astype(np.float32)
    ranks = ranks_from_scores(scores)
    assert ranks.tolist() == [sorted_rank(scores[i], i) for i in range(31)]
    assert len(set(ranks.tolist())) > 10  # the case is not trivial


def test_ties_go_by_column() -> None:
    scores = np.array([[2.0, 2.0, 0.0], [5.0, 5.0, 0.0], [3.0, 4.0, 3.0]])
    assert ranks_from_scores(scores).tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [0.0, 7.5, float("inf"), -float("inf")])
@pytest.mark.parametrize("num", [8, 20, 101])
def test_a_collapsed_model_is_exactly_at_chance(num: int, value: float) -> None:
    assert retrieval_metrics(
        ranks_from_scores(np.full((num, num), value, dtype=np.float32))
    ) == chance_metrics(num)


def test_a_score_that_is_no_number_never_helps() -> None:
    scores = np.eye(4, dtype=np.float32)
    scores[1, 1] = np.nan  # its own score: last
    scores[2, 0] = np.nan  # another one: counted as ranked before
    assert ranks_from_scores(scores).tolist() == [0, 3, 1, 0]


@pytest.mark.parametrize("num", [3, 7, 40])
def test_chance_is_the_mean_over_random_scores(num: int) -> None:
    rng = np.random.default_rng(num)
    runs = [retrieval_metrics(ranks_from_scores(rng.normal(size=(num, num)))) for _ in range(2000)]
    for name, expected in chance_metrics(num).items():
        values = np.array([run[name] for run in runs])
        error = 4 * values.std() / np.sqrt(len(values))  # four standard errors; the worst is 2.8
        assert values.mean() == pytest.approx(expected, abs=error + 1e-12), name


def test_credit_is_shared_among_equal_choices_and_never_given_for_unknown_ones() -> None:
    assert shared_credit(np.eye(5)[[1, 2, 3, 4]], np.array([1, 0, 3, 0])).mean() == 0.5
    scores = np.array([[1, 2, 2, 0], [1, 2, 2, 0], [3, 2, 2, 0], [1.0, 2, 2, 0], [2, 2, 2, 2]])
    assert shared_credit(scores, np.array([2, 0, 0, 7, 3])).tolist() == [0.5, 0, 1, 0, 0.25]


def test_ranks_of_vectors_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    # Whole numbers: many exact ties.
    queries, candidates = rng.integers(-2, 3, (2, 23, 4)).astype(np.float32)
    expected = ranks_from_scores(queries @ candidates.T)
    for scores_per_chunk in (1, 23 * 5, 1 << 20):
        monkeypatch.setattr(functional, "_SCORES_PER_CHUNK", scores_per_chunk)
        assert ranks_from_vectors(queries, candidates).tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 8
