"""Metrics against numbers recorded from the original implementation (golden/metrics.*,
golden/e2e_predict.*).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.evaluators import (
    BGRetrievalOutputs,
    ClipId,
    FullVideoBGRetrievalMetric,
    FullVideoRetrievalMetric,
    RetrievalMetric,
    RetrievalOutputs,
    full_video,
    full_video_bg,
    warping,
)
from mmpt.evaluators.full_video import Lengths
from mmpt.evaluators.functional import shared_credit

GOLDEN = Path(__file__).parent / "golden"
ARRAYS = np.load(GOLDEN / "metrics.npz", allow_pickle=False)
RESULTS: dict[str, Any] = json.loads((GOLDEN / "metrics.json").read_text())["results"]
FULL_VIDEO_CASES = {
    "fullvideo": "FullVideoRetrievalMetric(sorted video order)",
    "fullvideo_equal": "FullVideoRetrievalMetric(equal lengths)",
}


def outputs_of(scores: np.ndarray, video_ids: list[str]) -> RetrievalOutputs:
    rows = scores.astype(np.float32)  # times the identity: exactly these scores
    clips = [ClipId(video_id) for video_id in video_ids]
    return RetrievalOutputs(
        pooled_text=rows, pooled_video=np.eye(len(rows), dtype=np.float32), clips=clips
    )


def assert_same_numbers(result: dict[str, float], expected: dict[str, float], error: float) -> None:
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=error)


def test_retrieval_metric() -> None:
    scores = ARRAYS["retrieval_scores"]
    result = RetrievalMetric().compute(outputs_of(scores, [str(n) for n in range(len(scores))]))
    assert_same_numbers(result, RESULTS["RetrievalMetric"], 1e-12)


@pytest.mark.parametrize(
    ("kind", "metric", "number"),
    [("qa", "QAMetric", "acc"), ("coin", "COINActionSegmentationMetric", "frame_acc")],
)
def test_accuracies(kind: str, metric: str, number: str) -> None:
    scores = np.eye(1000)[ARRAYS[f"{kind}_outputs"]]  # the predicted one is best
    accuracy = shared_credit(scores, ARRAYS[f"{kind}_targets"]).mean()
    assert accuracy == pytest.approx(RESULTS[metric][number], abs=1e-12)


@pytest.mark.parametrize("kind", ["caption_average", "dtw", "otam"])
@pytest.mark.parametrize("case", FULL_VIDEO_CASES)
def test_full_video_scores(case: str, kind: str) -> None:
    grouping = full_video.group_by_video(ARRAYS[f"{case}_video_ids"].tolist())
    scores = ARRAYS[f"{case}_scores"][np.ix_(grouping.order, grouping.order)]
    result = getattr(full_video, kind)(scores, Lengths.of(grouping.lengths))
    # 1.4e-7; dtw and otam are identical.
    np.testing.assert_allclose(result, ARRAYS[f"{case}_sim_{kind}"], rtol=1e-6)


@pytest.mark.parametrize("case", FULL_VIDEO_CASES)
def test_full_video_metric(case: str) -> None:
    outputs = outputs_of(ARRAYS[f"{case}_scores"], ARRAYS[f"{case}_video_ids"].tolist())
    assert_same_numbers(
        FullVideoRetrievalMetric().compute(outputs), RESULTS[FULL_VIDEO_CASES[case]], 1e-12
    )


def bg_outputs(
    scores: np.ndarray, num_captions: list[int], num_windows: list[int]
) -> BGRetrievalOutputs:
    return BGRetrievalOutputs(
        pooled_text=scores.astype(np.float32),
        pooled_video=np.eye(scores.shape[1], dtype=np.float32),
        num_captions=np.array(num_captions),
        num_windows=np.array(num_windows),
        video_ids=[f"v{v}" for v in range(len(num_captions))],
    )


@pytest.mark.parametrize("kind", ["caption_average", "dtw", "otam"])
def test_scores_of_full_videos_with_background(kind: str) -> None:
    lengths = Lengths.of(ARRAYS["bg_text_lengths"], ARRAYS["bg_video_lengths"])
    function = (
        full_video.caption_average if kind == "caption_average" else getattr(full_video_bg, kind)
    )
    result = function(ARRAYS["bg_scores"], lengths)
    # 1.4e-7; dtw and otam are identical.
    np.testing.assert_allclose(result, ARRAYS[f"bg_sim_{kind}"], rtol=1e-6)


def test_full_video_metric_with_background() -> None:
    lengths = (ARRAYS[f"bg_{what}_lengths"].tolist() for what in ("text", "video"))
    result = FullVideoBGRetrievalMetric().compute(bg_outputs(ARRAYS["bg_scores"], *lengths))
    assert_same_numbers(result, RESULTS["FullVideoBGRetrievalMetric"], 1e-12)


@pytest.mark.parametrize("size", [(6, 5), (4, 3), (4, 5), (6, 3)], ids=str)
@pytest.mark.parametrize("kind", ["DTW", "OTAM"])
def test_padding_and_recursion(kind: str, size: tuple[int, int]) -> None:
    suffix = f"{size[0]}x{size[1]}"
    pad = {"DTW": warping.pad_dtw, "OTAM": warping.pad_otam}[kind]
    padded = pad(ARRAYS["pad_in"][0, 0, :, :, None], size)
    np.testing.assert_array_equal(padded[:, :, 0], ARRAYS[f"{kind}_pad_{suffix}"][0, 0])
    total = (
        warping.cumulate_dtw(padded)
        if kind == "DTW"
        else warping.cumulate_otam(padded, first_sign=-1)
    )
    np.testing.assert_array_equal(total[:, :, 0], ARRAYS[f"{kind}_cum_{suffix}"][0, 0])


def test_a_block_of_two_rows() -> None:
    """Numbers of the released functions on [[1, 3, 2], [4, 1, 5]]."""
    block = np.array([[1, 3, 2], [4, 1, 5]], dtype=np.float32)[:, :, None]
    assert warping.cumulate_dtw(block)[:, :, 0].tolist() == [[1, 4, 6], [5, 2, 7]]
    costs = {
        size: warping.dtw_cost(block, size).item() for size in [(2, 3), (3, 3), (2, 4), (3, 4)]
    }
    assert costs == {(2, 3): 1.0, (3, 3): 1.0, (2, 4): 6.0, (3, 4): 6.0}
    assert warping.dtw_cost(block, (3, 4), "corrected").item() == 7.0
    inf = float("inf")
    padded = warping.pad_otam(block, (3, 4))
    assert padded[:, :, 0].tolist() == [[0, 1, 3, 2, 0, inf], [0, 4, 1, 5, 0, 0], [inf] * 5 + [0]]
    rows = warping.cumulate_otam(padded, first_sign=-1)[:, :, 0].tolist()
    assert rows == [[0, 1, 4, 6, 6, inf], [0, 4, 2, 7, 6, 6], [0, inf, inf, inf, inf, 6]]
    full = warping.cumulate_otam(warping.pad_otam(block, (2, 3)), first_sign=-1)[:, :, 0]
    assert full.tolist() == [[0, 1, 4, 6, 6], [0, 0, 0, 0, 0]]


def test_fourteen_clips_of_five_videos() -> None:
    """Numbers of the released functions on a score formula."""
    i, j = np.meshgrid(np.arange(14), np.arange(14), indexing="ij")
    scores = 3 * np.exp(-0.15 * (i - j) ** 2) + 1.5 * np.sin(1.7 * i + 0.9 * j)
    num_clips = [3, 2, 4, 3, 2]
    lengths = Lengths.of(np.array(num_clips))
    dtw, otam = full_video.dtw(scores, lengths), full_video.otam(scores, lengths)
    error = {"rtol": 0, "atol": 2e-6}  # 1.1e-6: the numbers are rounded to six digits
    averages = full_video.caption_average(scores, lengths)
    np.testing.assert_allclose(
        averages[0], [3.167184, 1.423246, 1.654808, 0.636569, 0.48821], **error
    )
    np.testing.assert_allclose(dtw[0], [25.908693, 17.54298, 2.889108, 3.276725, 2.087864], **error)
    np.testing.assert_allclose(
        dtw[2], [3.923478, 12.469442, 17.393087, 6.928778, 2.675784], **error
    )
    np.testing.assert_allclose(
        otam[0], [32.555359, 24.561421, 6.333628, 4.28624, 8.475253], **error
    )
    outputs = outputs_of(
        scores, [f"v{v}" for v, length in enumerate(num_clips) for _ in range(length)]
    )
    expected = {"R1": 3 / 14, "R5": 13 / 14, "R10": 1.0, "MR": 2.0}
    assert_same_numbers(RetrievalMetric().compute(outputs), expected, 1e-12)
    assert set(FullVideoRetrievalMetric().compute(outputs).values()) == {1.0}


def test_fourteen_captions_and_twenty_two_windows() -> None:
    """Numbers of the released functions on a score formula, with background."""
    a, b = np.meshgrid(np.arange(14), np.arange(22), indexing="ij")
    scores = 3 * np.exp(-0.1 * (22 * a / 14 - b) ** 2) + 1.2 * np.cos(1.3 * a + 0.7 * b)
    captions, windows = [3, 2, 4, 3, 2], [5, 4, 6, 3, 4]
    lengths = Lengths.of(np.array(captions), np.array(windows))
    error = {"rtol": 0, "atol": 2e-6}  # 1.1e-6: the numbers are rounded to six digits
    averages = full_video.caption_average(scores, lengths)
    np.testing.assert_allclose(
        averages[0], [3.47123, 1.864605, 0.899248, 1.057935, 0.502249], **error
    )
    dtw, otam = full_video_bg.dtw(scores, lengths), full_video_bg.otam(scores, lengths)
    np.testing.assert_allclose(
        dtw[0], [4.761852, -19.337814, -18.051617, -19.749935, -21.362391], **error
    )
    # 3.1e-6.
    np.testing.assert_allclose(
        otam[0], [40.613487, 18.390282, 8.1993, 9.733759, 5.374964], rtol=0, atol=4e-6
    )
    result = FullVideoBGRetrievalMetric().compute(bg_outputs(scores, captions, windows))
    assert (result["R1"], result["DTW-R1"], result["OTAM-R1"]) == (0.8, 0.8, 0.8)


@pytest.mark.parametrize("task", ["test_vtt_zs", "test_youcook_zs"])
def test_printed_retrieval_line(task: str) -> None:
    scores, printed = end_to_end(task)
    metric = RetrievalMetric()
    assert (
        metric.summary(metric.compute(outputs_of(scores, [str(n) for n in range(len(scores))])))
        in printed
    )


def test_printed_full_video_lines() -> None:
    scores, printed = end_to_end("test_youcook_fullvideo_zs")
    files = json.loads((GOLDEN / "e2e_predict.json").read_text())["annotation_files"]
    records = json.loads(files["data/youcook/youcook_val.pkl(as json)"])
    video_ids = [
        record["id"].rpartition("_")[0]
        for record in records
        if not record["id"].startswith("missing")
    ]
    metric = FullVideoRetrievalMetric()
    summary = metric.summary(metric.compute(outputs_of(scores, video_ids)))
    titles = [("Caption Average:", "Caption Average"), ("DTW:", "DTW"), ("OTAM", "OTAM")]
    lines = [f"{ours}: {printed[printed.index(theirs) + 1]}" for theirs, ours in titles]
    assert summary == " | ".join(lines)


def end_to_end(task: str) -> tuple[np.ndarray, list[str]]:
    """Scores that the original saved, and the lines it printed for them."""
    with np.load(GOLDEN / "e2e_predict.npz", allow_pickle=False) as arrays:
        scores = arrays[f"{task}/merged"]
    return scores, json.loads((GOLDEN / "e2e_predict.json").read_text())["results"][task][
        "stdout_tail"
    ]
