"""Alignment of sentences with seconds, against brute force and for a hand-made video."""

import itertools

import numpy as np
import torch

from mmpt.inference.alignment import align_sentences, monotone_peaks, span_around


def test_monotone_peaks_equal_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        # Small integers: many ties.
        plan = rng.integers(0, 5, size=(4, 6)).astype(float)
        choices = itertools.combinations_with_replacement(range(6), 4)
        best = max(plan[np.arange(4), choice].sum() for choice in choices)
        peaks = monotone_peaks(plan)
        assert list(peaks) == sorted(peaks)
        assert plan[np.arange(4), peaks].sum() == best


def test_a_span_includes_seconds_above_half_of_the_peak():
    row = np.array([0.1, 0.9, 0.5, 1.0, 0.39, 0.8])
    assert span_around(row, 3) == (1, 4)
    assert span_around(row, 5) == (5, 6)
    assert span_around(np.ones(3), 0) == (0, 3)


def test_scenes_of_a_hand_made_video_are_found():
    """The video has three scenes of 4, 2 and 3 seconds.

    The sentences describe them in another order. The last sentence describes none of them.
    """
    scenes = torch.eye(4)[[0, 0, 0, 0, 1, 1, 2, 2, 2]]
    result = align_sentences(
        3 * torch.eye(4)[[2, 0, 1, 3]],
        scenes,
        epsilon=0.3,
        iterations=50,
        monotone=False,
    )
    assert result.spans[:3] == [(6, 9), (0, 4), (4, 6)]
    np.testing.assert_allclose(result.scores[:3], 1, rtol=1e-6)
    assert abs(result.scores[3]) < 1e-6
    np.testing.assert_allclose(result.plan.sum(axis=0), 4 / 9, rtol=1e-5)
    monotone = align_sentences(
        torch.eye(4)[[2, 0, 1]], scenes, epsilon=0.3, iterations=50, monotone=True
    )
    starts = [start for start, _ in monotone.spans]
    assert starts == sorted(starts)
