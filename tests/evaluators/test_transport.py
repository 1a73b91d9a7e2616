"""Transport scores of many pairs at once, against a loop over single pairs."""

import numpy as np
import pytest

from mmpt.evaluators import full_video
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.transport import transport_score


def loop_transport(scores: np.ndarray, epsilon: float) -> float:
    """Returns the score of a pair by Sinkhorn's algorithm on the kernel itself, 50 iterations."""
    rows, cols = scores.shape
    kernel = np.exp(scores / epsilon)
    v = np.ones(cols)
    for _ in range(50):
        u = (1 / rows) / (kernel @ v)
        v = (1 / cols) / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    return float((plan * scores).sum())


@pytest.mark.parametrize("epsilon", [1.0, 0.1])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (6, 2), (4, 5), (5, 5)], ids=str)
def test_the_scores_of_pairs_equal_a_loop(
    size: tuple[int, int], epsilon: float
) -> None:
    rng = np.random.default_rng(4)
    scores_PSW = rng.normal(0.5, 2.0, size=(7, *size))
    result = transport_score(np.moveaxis(scores_PSW, 0, 2), epsilon)
    expected = [loop_transport(scores_SW, epsilon) for scores_SW in scores_PSW]
    np.testing.assert_allclose(result, expected, atol=1e-12)  # measured 2e-15


def test_the_score_of_a_paragraph_and_a_video_is_the_score_of_its_block() -> None:
    scores = np.random.default_rng(5).normal(0.5, 2.0, size=(3, 6)).astype(np.float32)
    lengths = Lengths.of(np.array([1, 2]), np.array([4, 2]))
    result = full_video.optimal_transport(scores, lengths)
    expected = [
        [loop_transport(scores[:1, :4], 1.0), loop_transport(scores[:1, 4:], 1.0)],
        [loop_transport(scores[1:, :4], 1.0), loop_transport(scores[1:, 4:], 1.0)],
    ]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_large_scores_give_the_matching_without_overflow() -> None:
    scores = np.full((3, 3), -5000.0)
    scores[[0, 1, 2], [2, 0, 1]] = 7000.0  # exp(12000) overflows
    assert transport_score(scores[:, :, None]) == pytest.approx(7000)


def test_the_transport_score_of_equal_scores_is_exact() -> None:
    scores = np.full((2, 5, 1), 0.3)
    assert transport_score(scores).item() == 0.3
