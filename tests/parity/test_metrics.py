"""Metrics and their inputs against numbers recorded from the original (metrics.*, downstream.*)."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt.endtasks.crosstask.evaluation import (
    CrossTaskMetric,
    LocalisationOutputs,
    PlacedVideo,
)
from mmpt.endtasks.didemo import moments
from mmpt.endtasks.msrvtt_qa.evaluation import answer_scores
from mmpt.evaluators import (
    BGRetrievalOutputs,
    ClipId,
    FullVideoBGRetrievalMetric,
    FullVideoRetrievalMetric,
    RetrievalMetric,
    RetrievalOutputs,
    full_video,
    warping,
)
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import shared_credit
from mmpt.processors.window_aligner import average_windows, window_spans
from tests.support.recorded import INPUTS, arrays, record

ARRAYS, RECORD = arrays("metrics"), record("metrics")
RESULTS = RECORD["results"]
FULL_VIDEO_CASES = {
    "fullvideo": "FullVideoRetrievalMetric(sorted video order)",
    "fullvideo_equal": "FullVideoRetrievalMetric(equal lengths)",
}


def outputs_of(scores: np.ndarray, video_ids: list[str]) -> RetrievalOutputs:
    # The product with the identity gives exactly these scores.
    rows = scores.astype(np.float32)
    clips = [ClipId(video_id) for video_id in video_ids]
    return RetrievalOutputs(
        pooled_text=rows, pooled_video=np.eye(len(rows), dtype=np.float32), clips=clips
    )


def assert_same_numbers(result: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: result[name] for name in expected} == pytest.approx(
        expected, abs=1e-12
    )


def test_retrieval_metric() -> None:
    scores = ARRAYS["retrieval_scores"]
    result = RetrievalMetric().compute(
        outputs_of(scores, [str(n) for n in range(len(scores))])
    )
    assert_same_numbers(result, RESULTS["RetrievalMetric"])


@pytest.mark.parametrize(
    ("kind", "metric", "number"),
    [("qa", "QAMetric", "acc"), ("coin", "COINActionSegmentationMetric", "frame_acc")],
)
def test_accuracies(kind: str, metric: str, number: str) -> None:
    # The recorded prediction has the best score.
    scores = np.eye(1000)[ARRAYS[f"{kind}_outputs"]]
    accuracy = shared_credit(scores, ARRAYS[f"{kind}_targets"]).mean()
    assert accuracy == pytest.approx(RESULTS[metric][number], abs=1e-12)


@pytest.mark.parametrize("kind", ["caption_average", "dtw", "otam"])
@pytest.mark.parametrize("case", [*FULL_VIDEO_CASES, "bg"])
def test_whole_video_scores(case: str, kind: str) -> None:
    scores, score = ARRAYS[f"{case}_scores"], getattr(full_video, kind)
    if case == "bg":
        lengths = Lengths.of(ARRAYS["bg_text_lengths"], ARRAYS["bg_video_lengths"])
        score = score if kind == "caption_average" else partial(score, background=True)
    else:
        ids = ARRAYS[f"{case}_video_ids"].tolist()
        grouping = full_video.group_by_video(ids, [0.0] * len(ids))
        lengths = Lengths.of(grouping.lengths)
        scores = scores[np.ix_(grouping.order, grouping.order)]
    # Measured 1.4e-7; dtw and otam are identical.
    result = score(scores, lengths)
    np.testing.assert_allclose(result, ARRAYS[f"{case}_sim_{kind}"], rtol=1e-6)


@pytest.mark.parametrize("case", FULL_VIDEO_CASES)
def test_full_video_metric(case: str) -> None:
    outputs = outputs_of(ARRAYS[f"{case}_scores"], ARRAYS[f"{case}_video_ids"].tolist())
    numbers = FullVideoRetrievalMetric().compute(outputs)
    assert_same_numbers(numbers, RESULTS[FULL_VIDEO_CASES[case]])


def test_full_video_metric_with_background() -> None:
    scores, num_captions = (
        ARRAYS["bg_scores"].astype(np.float32),
        ARRAYS["bg_text_lengths"],
    )
    outputs = BGRetrievalOutputs(
        pooled_text=scores,
        pooled_video=np.eye(scores.shape[1], dtype=np.float32),
        num_captions=num_captions,
        num_windows=ARRAYS["bg_video_lengths"],
        video_ids=[f"v{v}" for v in range(len(num_captions))],
    )
    numbers = FullVideoBGRetrievalMetric().compute(outputs)
    assert_same_numbers(numbers, RESULTS["FullVideoBGRetrievalMetric"])


@pytest.mark.parametrize("size", [(6, 5), (4, 3), (4, 5), (6, 3)], ids=str)
@pytest.mark.parametrize("kind", ["DTW", "OTAM"])
def test_padding_and_recursion(kind: str, size: tuple[int, int]) -> None:
    block = ARRAYS["pad_in"][0, 0, :, :, None]
    if kind == "DTW":
        padded = warping.pad(block, size)
        total = warping.cumulate_dtw(padded)
    else:
        padded = warping.pad(
            np.pad(block, ((0, 0), (1, 1), (0, 0))), (size[0], size[1] + 2)
        )
        total = warping.cumulate_otam(padded, first_sign=-1)
    suffix = f"{size[0]}x{size[1]}"
    np.testing.assert_array_equal(padded[:, :, 0], ARRAYS[f"{kind}_pad_{suffix}"][0, 0])
    np.testing.assert_array_equal(total[:, :, 0], ARRAYS[f"{kind}_cum_{suffix}"][0, 0])


def test_multiple_choice() -> None:
    golden = arrays("downstream")
    # The recording repeats every video for its five answers.
    video = golden["qa_pooled_video"].reshape(4, 5, -1)[:, 0]
    inputs = dict.fromkeys(INPUTS, torch.zeros(4, 5, 1))
    towers = SimpleNamespace(
        forward_video=lambda *_: (torch.from_numpy(video),),
        forward_text=lambda *_: (torch.from_numpy(golden["qa_pooled_text"]),),
    )
    scores = answer_scores(towers, inputs)
    np.testing.assert_array_equal(scores.argmax(dim=1), golden["qa_prediction"])


def test_ranking_of_moments() -> None:
    golden = arrays("downstream")
    states, text = golden["didemo_hidden_video"][:, 1:31], golden["didemo_pooled_text"]
    num_seconds = golden["didemo_vmasks"].sum(axis=1)
    scores = moments.moment_scores(
        np.einsum("nsd,nd->ns", states, text), num_seconds, "released"
    )
    ranking = moments.rank_moments(scores, num_seconds, "released")
    expected = record("downstream")["didemo_ranked_segments"]
    assert len(ranking) == len(expected)
    for row, segments in zip(ranking, expected, strict=True):
        found = [list(moments.MOMENTS[m]) for m in row if m >= 0]
        assert found == segments


def test_moment_metric() -> None:
    outputs, targets = (
        RECORD["didemo_inputs"]["outputs"],
        RECORD["didemo_inputs"]["targets"],
    )
    ranking = np.full((len(outputs), len(moments.MOMENTS)), -1)
    for row, found in zip(ranking, outputs, strict=True):
        row[: len(found)] = [moments.NUMBER_PP[first, last] for first, last in found]
    numbers = moments.moment_metrics(
        ranking, np.array([target["times"] for target in targets])
    )
    assert_same_numbers(numbers, RESULTS["DiDeMoMetric"])


def test_merged_windows() -> None:
    golden = arrays("downstream")
    ours = average_windows(golden["coin_window_logits"], window_spans(37, 8, 16))
    # Measured 0.
    np.testing.assert_allclose(ours, golden["coin_merged_logits"], rtol=1e-6)


def test_crosstask_recall() -> None:
    names = [name for name in ARRAYS if name.startswith("crosstask_true/")]
    assert len(names) == 6
    videos = [
        PlacedVideo(
            *name.split("/")[1:],
            done=ARRAYS[name],
            placed=ARRAYS[name.replace("_true/", "_pred/")],
        )
        for name in names
    ]
    numbers = CrossTaskMetric().compute(LocalisationOutputs(videos=videos))
    assert_same_numbers(numbers, RESULTS["CrossTaskMetric"])
