"""DTW and OTAM with another constant, against published metrics and with shifted scores."""

from pathlib import Path

import numpy as np
import pytest

from experiments.offsets import (
    CONSTANTS,
    METHODS,
    Scores,
    calibrated,
    offset_curve,
    pair_scores,
    read_predictions,
    recall_at_1,
)
from mmpt.evaluators.full_video import Lengths, dtw, otam


@pytest.fixture(params=[False, True], ids=["clips", "background"])
def scores(request: pytest.FixtureRequest) -> Scores:
    """Scores of 12 paragraphs and videos. Matching clips score 2 higher on average."""
    generator = np.random.default_rng(5)
    captions = generator.integers(3, 7, size=12)
    clips = captions + 2 * request.param
    values = 3 * generator.standard_normal((captions.sum(), clips.sum()))
    own_R = np.repeat(np.arange(12), captions)
    own_M = np.repeat(np.arange(12), clips)
    values += 2 * (own_R[:, None] == own_M)
    return Scores(
        values.astype(np.float32), Lengths.of(captions, clips), bool(request.param)
    )


def recall(scores_pn: np.ndarray) -> float:
    return float(
        np.mean([row.argmax() == number for number, row in enumerate(scores_pn)])
    )


def test_the_release_has_the_constants_0_and_3(scores: Scores) -> None:
    background = scores.background
    by_dtw = dtw(scores.values, scores.lengths, background=background)
    by_otam = otam(scores.values, scores.lengths, background=background)
    moved = pair_scores(scores, "DTW", 3.0 if background else 0.0)
    # The sums are in another order.
    np.testing.assert_allclose(moved, by_dtw, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(pair_scores(scores, "OTAM", 0.0), by_otam)


def test_recall_at_1_counts_rows_whose_diagonal_is_largest(scores: Scores) -> None:
    scores_pn = pair_scores(scores, "DTW", 1.0)
    assert recall_at_1(scores_pn) == recall(scores_pn)
    shifted = np.roll(scores_pn, 1, axis=1)
    assert recall_at_1(shifted) == recall(shifted) < recall(scores_pn)


@pytest.mark.slow
def test_a_constant_added_to_all_scores_moves_the_calibrated_constant(
    scores: Scores,
) -> None:
    moved = Scores(scores.values + np.float32(8), scores.lengths, scores.background)
    found, moved_found = calibrated(scores), calibrated(moved)
    for way in METHODS:
        name = f"{way}-constant"
        assert moved_found[name] == pytest.approx(found[name] + 8, abs=1e-3)
        assert moved_found[f"{way}-R1"] == pytest.approx(
            found[f"{way}-R1"], abs=1 / 12 + 1e-6
        )
    assert offset_curve(moved)["DTW"] != offset_curve(scores)["DTW"]


@pytest.mark.slow
def test_the_calibration_does_not_use_the_pairing(scores: Scores) -> None:
    """Videos in another order than the paragraphs give the same constants and another recall."""
    clips = scores.lengths.clips
    ends = np.cumsum(clips)
    order = np.roll(np.arange(12), 1)
    columns = np.concatenate([np.arange(ends[i] - clips[i], ends[i]) for i in order])
    lengths = Lengths.of(scores.lengths.captions, clips[order])
    found = calibrated(Scores(scores.values[:, columns], lengths, scores.background))
    for way in METHODS:
        assert found[f"{way}-constant"] == pytest.approx(
            calibrated(scores)[f"{way}-constant"]
        )
    assert found["DTW-R1"] < calibrated(scores)["DTW-R1"]


def test_the_calibrated_constant_is_near_the_best_one(scores: Scores) -> None:
    assert (
        calibrated(scores)["DTW-R1"] >= max(offset_curve(scores)["DTW"]) - 1 / 12 - 1e-3
    )


def test_the_curve_has_a_value_per_constant(scores: Scores) -> None:
    curve = offset_curve(scores)
    assert set(curve) == set(METHODS)
    for way, values in curve.items():
        assert len(values) == len(CONSTANTS)
        at_0 = recall(pair_scores(scores, way, 0.0))
        assert values[CONSTANTS.index(0)] == pytest.approx(at_0, abs=1e-4)
    assert len(set(curve["DTW"])) > 1


def test_predictions_of_clips_are_grouped_by_video(tmp_path: Path) -> None:
    text = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = tmp_path / "clips.npz"
    np.savez(
        path,
        pooled_text=text,
        pooled_video=text + 1,
        video_id=np.array(["b", "a", "b", "a"]),
        start_s=np.array([5.0, 0.0, 1.0, 9.0]),
    )
    found = read_predictions(path)
    order = [2, 0, 1, 3]  # video b first, as it is listed first; clips by start
    np.testing.assert_array_equal(found.values, text[order] @ (text[order] + 1).T)
    assert found.lengths.captions.tolist() == [2, 2]
    assert not found.background


def test_predictions_with_background_have_windows(tmp_path: Path) -> None:
    text, video = np.eye(5, 3, dtype=np.float32), np.eye(7, 3, dtype=np.float32)
    path = tmp_path / "windows.npz"
    counts = {"num_captions": np.array([2, 3]), "num_windows": np.array([4, 3])}
    np.savez(path, pooled_text=text, pooled_video=video, **counts)
    found = read_predictions(path)
    assert found.background
    assert found.values.shape == (5, 7)
    assert found.lengths.clips.tolist() == [4, 3]
