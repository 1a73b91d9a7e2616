"""Metric classes: names, the regrouping of clips, and chance values on hand-made outputs."""

import logging

import numpy as np
import pytest

from mmpt.evaluators import (
    BGRetrievalOutputs,
    ClipId,
    FullVideoBGRetrievalMetric,
    FullVideoRetrievalMetric,
    Metric,
    RetrievalMetric,
    RetrievalOutputs,
)


def outputs_of(scores: np.ndarray, clips: list[ClipId]) -> RetrievalOutputs:
    rows = scores.astype(np.float32)  # times the identity: exactly these scores
    return RetrievalOutputs(
        pooled_text=rows, pooled_video=np.eye(len(rows), dtype=np.float32), clips=clips
    )


def youcook_like(num_videos: int = 6, seed: int = 0) -> RetrievalOutputs:
    clips = [
        ClipId(f"v{v}", 10 * s, 10 * s + 8) for v in range(num_videos) for s in range(2 + v % 3)
    ]
    scores = np.random.default_rng(seed).normal(size=(len(clips), len(clips))) + 1.5 * np.eye(
        len(clips)
    )
    return outputs_of(scores.astype(np.float32), clips)


def with_background(num_videos: int = 6, seed: int = 0) -> BGRetrievalOutputs:
    rng = np.random.default_rng(seed)
    captions, windows = 2 + np.arange(num_videos) % 3, 4 + np.arange(num_videos) % 4
    scores = rng.normal(size=(captions.sum(), windows.sum()))
    return BGRetrievalOutputs(
        pooled_text=scores.astype(np.float32),
        pooled_video=np.eye(windows.sum(), dtype=np.float32),
        num_captions=captions,
        num_windows=windows,
        video_ids=[f"v{v}" for v in range(num_videos)],
    )


@pytest.mark.parametrize(
    "metric", [RetrievalMetric(), FullVideoRetrievalMetric(), FullVideoBGRetrievalMetric()]
)
def test_results_and_chance_have_the_declared_names(metric: Metric) -> None:
    outputs = with_background() if metric.takes is BGRetrievalOutputs else youcook_like()
    result = metric.compute(outputs)
    assert tuple(result) == metric.names
    assert tuple(metric.chance(outputs)) == metric.names
    assert metric.best(result) == result["R1"]


def test_retrieval_metric_has_both_directions() -> None:
    scores = np.array([[3.0, 0.0, 0.0], [4.0, 1.0, 0.0], [5.0, 0.0, 1.0]])
    result = RetrievalMetric().compute(outputs_of(scores, [ClipId(v) for v in "abc"]))
    assert (result["R1"], result["v2t-R1"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_a_shuffled_test_set_gives_the_same_full_video_numbers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = youcook_like()
    metric = FullVideoRetrievalMetric()
    expected = metric.compute(outputs)
    assert not caplog.records
    order = np.random.default_rng(1).permutation(len(outputs.clips))
    shuffled = outputs_of(outputs.scores[np.ix_(order, order)], [outputs.clips[n] for n in order])
    with caplog.at_level(logging.WARNING):
        assert metric.compute(shuffled) == expected
    assert "regrouped" in caplog.text
    assert 0 < expected["DTW-R1"] < 1  # the case is not trivial


def test_a_collapsed_model_is_at_chance_on_clips_and_videos() -> None:
    outputs = youcook_like(num_videos=12)
    collapsed = outputs_of(np.full_like(outputs.scores, 3.0), outputs.clips)
    for metric in (RetrievalMetric(), FullVideoRetrievalMetric()):
        assert metric.compute(collapsed) == pytest.approx(metric.chance(collapsed), abs=1e-12)


def test_a_collapsed_model_is_at_chance_with_background_where_lengths_are_equal() -> None:
    rows = np.full((24, 60), 3.0, dtype=np.float32)
    collapsed = BGRetrievalOutputs(
        pooled_text=rows,
        pooled_video=np.eye(60, dtype=np.float32),
        num_captions=np.full(12, 2),
        num_windows=np.full(12, 5),
        video_ids=[str(v) for v in range(12)],
    )
    metric = FullVideoBGRetrievalMetric()
    assert metric.compute(collapsed) == pytest.approx(metric.chance(collapsed), abs=1e-12)


def test_both_forms_of_an_alignment_stand_beside_each_other_and_transport_is_computed() -> None:
    for metric, outputs in (
        (FullVideoRetrievalMetric(), youcook_like(num_videos=9, seed=4)),
        (FullVideoBGRetrievalMetric(), with_background(num_videos=9, seed=1)),
    ):
        result = metric.compute(outputs)
        names = [(way, k) for way in ("DTW-", "OTAM-") for k in (1, 5)]
        assert any(result[f"{way}R{k}"] != result[f"{way}corrected-R{k}"] for way, k in names)
        assert 0 < result["OT-R5"] < 1
