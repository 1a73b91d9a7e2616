"""Metric classes: names, the grouping of clips, and chance values for generated outputs."""

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
    # The product with the identity gives exactly these scores.
    rows = scores.astype(np.float32)
    identity = np.eye(len(rows), dtype=np.float32)
    return RetrievalOutputs(pooled_text=rows, pooled_video=identity, clips=clips)


def youcook_like(num_videos: int = 6, seed: int = 0) -> RetrievalOutputs:
    """Returns outputs of 2 to 4 clips per video, whose own captions score higher on average."""
    clips = []
    for v in range(num_videos):
        num_clips = 2 + v % 3
        clips += [ClipId(f"v{v}", 10 * k, 10 * k + 8) for k in range(num_clips)]
    size = len(clips)
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return outputs_of(noise + 1.5 * np.eye(size), clips)


COLLAPSED_BG = BGRetrievalOutputs(
    pooled_text=np.full((24, 60), 3.0, dtype=np.float32),
    pooled_video=np.eye(60, dtype=np.float32),
    num_captions=np.full(12, 2),
    num_windows=np.full(12, 5),
    video_ids=[str(v) for v in range(12)],
)


@pytest.mark.parametrize(
    "metric",
    [RetrievalMetric(), FullVideoRetrievalMetric(), FullVideoBGRetrievalMetric()],
)
def test_results_and_chance_have_the_declared_names(metric: Metric) -> None:
    outputs = (
        COLLAPSED_BG if metric.input_type is BGRetrievalOutputs else youcook_like()
    )
    result = metric.compute(outputs)
    names = [number.name for number in metric.numbers]
    assert list(result) == list(metric.chance(outputs)) == names


def test_retrieval_metric_has_both_directions() -> None:
    scores = np.array([[3.0, 0.0, 0.0], [4.0, 1.0, 0.0], [5.0, 0.0, 1.0]])
    result = RetrievalMetric().compute(outputs_of(scores, [ClipId(v) for v in "abc"]))
    assert result["R1"] == pytest.approx(1 / 3)
    assert result["v2t-R1"] == pytest.approx(2 / 3)


def test_a_shuffled_test_set_gives_the_same_full_video_numbers() -> None:
    outputs = youcook_like()
    metric = FullVideoRetrievalMetric()
    expected = metric.compute(outputs)
    order = np.random.default_rng(1).permutation(len(outputs.clips))
    scores = outputs.scores[order][:, order]
    shuffled = outputs_of(scores, [outputs.clips[n] for n in order])
    assert metric.compute(shuffled) == expected
    assert 0 < expected["DTW-R1"] < 1  # the case is not trivial


def test_a_collapsed_model_is_at_chance() -> None:
    """For the metric with background, all videos have the same length."""
    clips = youcook_like(num_videos=12).clips
    collapsed = outputs_of(np.full((len(clips), len(clips)), 3.0), clips)
    for metric, outputs in (
        (RetrievalMetric(), collapsed),
        (FullVideoRetrievalMetric(), collapsed),
        (FullVideoBGRetrievalMetric(), COLLAPSED_BG),
    ):
        assert metric.compute(outputs) == pytest.approx(
            metric.chance(outputs), abs=1e-12
        )
