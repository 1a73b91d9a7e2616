"""Alignment metrics against counts: pairs for ROC-AUC, and seconds for hits.

Chance is compared with a simulation.
"""

import itertools

import numpy as np
import pytest

from mmpt.endtasks.how2align.alignment_scores import (
    chance_auc,
    chance_hits,
    place_corrected,
    place_released,
    roc_auc,
    true_seconds,
)


def pair_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Returns the share of pairs whose positive has the higher score. Ties count half."""
    wins = []
    for above, below in itertools.product(scores[positive], scores[~positive]):
        if above == below:
            wins.append(0.5)
        else:
            wins.append(float(above > below))
    return sum(wins) / len(wins)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(20):
        scores = rng.integers(levels, size=40).astype(np.float64)
        positive = rng.random(40) < 0.3
        positive[:2] = True, False
        expected = pair_auc(scores, positive)
        assert roc_auc(scores, positive) == pytest.approx(expected, abs=1e-12)  # 1e-16


def test_the_times_of_a_sentence_are_rounded_outwards() -> None:
    spans = np.array([[1.2, 2.1], [3.0, 3.0], [2.0, 1.0]])
    found = true_seconds(spans, 5)
    assert found.astype(int).tolist() == [
        [0, 1, 1, 1, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]


def test_the_published_form_uses_zeros_and_the_first_maximum() -> None:
    similarity = np.array(
        [[0.0, -0.5, -0.2, -0.2], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32
    )
    spans = np.array([[2.0, 2.0], [0.0, 0.5]])
    hits, peaks = place_released(similarity, spans)
    # Sentence 2 is never compared. It is placed at second 0, which is correct.
    assert hits.tolist() == [1, 1]
    assert peaks.tolist() == pytest.approx([-0.2, -60000])


def test_the_corrected_form_ignores_uncovered_seconds_and_shares_ties() -> None:
    similarity = np.array(
        [[0.0, -0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32
    )
    covered = np.array([[True, True, True, False], [False] * 4])
    spans = np.array([[2.0, 3.0], [0.0, 0.5]])
    hits, peaks = place_corrected(similarity, covered, spans)
    # Seconds 0 and 2 are tied. The second sentence has no covered second.
    assert hits.tolist() == [0.5, 0]
    assert peaks.tolist() == [0, -np.inf]


@pytest.mark.parametrize("released", [True, False])
def test_chance_is_the_mean_of_many_random_similarities(released: bool) -> None:
    rng = np.random.default_rng(1)
    spans = np.sort(rng.uniform(0, 12, size=(40, 2)), axis=1)
    covered = np.arange(12) < rng.integers(0, 13, size=(40, 1))
    positive = np.arange(40) % 3 == 0
    all_hits, aucs = [], []
    for _ in range(3000):
        drawn = rng.uniform(0.1, 1, size=covered.shape)
        similarity = np.where(covered, drawn, 0)
        if released:
            hits, peaks = place_released(similarity, spans)
        else:
            hits, peaks = place_corrected(similarity, covered, spans)
        all_hits.append(hits)
        aucs.append(roc_auc(peaks, positive))
    # measured errors: hits 0.002 and 0.002, AUC 0.002
    expected_hits = chance_hits(covered, spans, released=released)
    expected_auc = chance_auc(covered.sum(axis=1), positive)
    assert np.mean(all_hits) == pytest.approx(expected_hits.mean(), abs=0.008)
    assert np.mean(aucs) == pytest.approx(expected_auc, abs=0.008)
