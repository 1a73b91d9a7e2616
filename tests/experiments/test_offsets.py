"""DTW and OTAM with another constant, against the published metrics and a shift of all scores."""

from pathlib import Path

import numpy as np
import pytest

from experiments.offsets import (
    CONSTANTS,
    Scores,
    calibrated_constant,
    offset_curve,
    read_predictions,
    recalls_at,
)
from mmpt.evaluators.full_video import Lengths, dtw, otam


@pytest.fixture(params=[False, True], ids=["clips", "background"])
def scores(request: pytest.FixtureRequest) -> Scores:
    """Scores of 12 paragraphs and videos. Own clips score 4 higher on average."""
    generator = np.random.default_rng(5)
    captions = generator.integers(3, 7, size=12)
    clips = captions + 2 * request.param
    values = 3 * generator.standard_normal((captions.sum(), clips.sum()))
    own_R = np.repeat(np.arange(12), captions)
    own_M = np.repeat(np.arange(12), clips)
    values += 4 * (own_R[:, None] == own_M)
    return Scores(values.astype(np.float32), Lengths.of(captions, clips), bool(request.param))


def recall(scores_pn: np.ndarray) -> float:
    return float(np.mean([row.argmax() == number for number, row in enumerate(scores_pn)]))


def test_the_release_has_the_constants_0_and_3(scores: Scores) -> None:
    background = scores.background
    by_dtw = dtw(scores.values, scores.lengths, background=background)
    by_otam = otam(scores.values, scores.lengths, background=background)
    constant = 3.0 if background else 0.0
    assert recalls_at(scores, constant)["DTW-R1"] == recall(by_dtw)
    assert recalls_at(scores, 0.0)["OTAM-R1"] == recall(by_otam)


def test_a_constant_added_to_all_scores_moves_the_calibrated_constant(scores: Scores) -> None:
    moved = Scores(scores.values + np.float32(8), scores.lengths, scores.background)
    constant, moved_constant = calibrated_constant(scores), calibrated_constant(moved)
    assert moved_constant == pytest.approx(constant + 8, abs=1e-5)
    assert recalls_at(moved, moved_constant) == recalls_at(scores, constant)
    assert recalls_at(moved, 0.0) != recalls_at(scores, 0.0)


def test_a_hundredth_of_the_scores_exceed_the_calibrated_constant(scores: Scores) -> None:
    share = (scores.values > calibrated_constant(scores)).mean()
    assert share == pytest.approx(0.01, abs=0.001)


def test_the_curve_has_a_value_per_constant(scores: Scores) -> None:
    curve = offset_curve(scores)
    assert set(curve) == {f"{way}-R1" for way in ("DTW", "OTAM", "DTW-corrected", "OTAM-corrected")}
    for name, values in curve.items():
        assert len(values) == len(CONSTANTS)
        assert values[0] == pytest.approx(recalls_at(scores, 0.0)[name], abs=1e-4)
    assert len(set(curve["DTW-R1"])) > 1


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
