"""Metrics against numbers recorded from the original implementation (golden/metrics.*, golden/e2e_predict.*)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.evaluators import ClipId, FullVideoRetrievalMetric, RetrievalMetric, RetrievalOutputs, full_video
from mmpt.evaluators.functional import accuracy

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
    return RetrievalOutputs(pooled_text=rows, pooled_video=np.eye(len(rows), dtype=np.float32), clips=clips)


def assert_same_numbers(result: dict[str, float], expected: dict[str, float], error: float) -> None:
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=error)


def test_retrieval_metric() -> None:
    scores = ARRAYS["retrieval_scores"]
    result = RetrievalMetric().compute(outputs_of(scores, [str(n) for n in range(len(scores))]))
    assert_same_numbers(result, RESULTS["RetrievalMetric"], 1e-12)


def test_accuracies() -> None:
    assert accuracy(ARRAYS["qa_outputs"], ARRAYS["qa_targets"]) == pytest.approx(RESULTS["QAMetric"]["acc"], abs=1e-12)
    frame_acc = RESULTS["COINActionSegmentationMetric"]["frame_acc"]
    assert accuracy(ARRAYS["coin_outputs"], ARRAYS["coin_targets"]) == pytest.approx(frame_acc, abs=1e-12)


@pytest.mark.parametrize("kind", ["caption_average", "dtw", "otam"])
@pytest.mark.parametrize("case", FULL_VIDEO_CASES)
def test_full_video_scores(case: str, kind: str) -> None:
    grouping = full_video.group_by_video(ARRAYS[f"{case}_video_ids"].tolist())
    scores = ARRAYS[f"{case}_scores"][np.ix_(grouping.order, grouping.order)]
    result = getattr(full_video, kind)(scores, grouping.lengths)
    np.testing.assert_allclose(result, ARRAYS[f"{case}_sim_{kind}"], rtol=1e-6)  # 1.4e-7; dtw and otam are identical


@pytest.mark.parametrize("case", FULL_VIDEO_CASES)
def test_full_video_metric(case: str) -> None:
    outputs = outputs_of(ARRAYS[f"{case}_scores"], ARRAYS[f"{case}_video_ids"].tolist())
    assert_same_numbers(FullVideoRetrievalMetric().compute(outputs), RESULTS[FULL_VIDEO_CASES[case]], 1e-12)


@pytest.mark.parametrize("size", [(6, 5), (4, 3), (4, 5), (6, 3)], ids=str)
@pytest.mark.parametrize("kind", ["DTW", "OTAM"])
def test_padding_and_recursion(kind: str, size: tuple[int, int]) -> None:
    block = ARRAYS["pad_in"][0, 0]
    rows, cols = block.shape
    target = np.full((*size, 1), 99.0, dtype=np.float32)  # what is outside the block must not matter
    target[:rows, :cols, 0] = block
    suffix = f"{size[0]}x{size[1]}"
    pad = {"DTW": full_video.pad_dtw, "OTAM": full_video.pad_otam}[kind]
    padded = pad(target, np.array([rows]), np.array([cols]))
    np.testing.assert_array_equal(padded[:, :, 0], ARRAYS[f"{kind}_pad_{suffix}"][0, 0])
    total = full_video.cumulate_dtw(padded) if kind == "DTW" else full_video.cumulate_otam(padded, first_sign=-1)
    np.testing.assert_array_equal(total[:, :, 0], ARRAYS[f"{kind}_cum_{suffix}"][0, 0])


def test_fourteen_clips_of_five_videos() -> None:
    """Numbers of the released functions on a score formula."""
    i, j = np.meshgrid(np.arange(14), np.arange(14), indexing="ij")
    scores = 3 * np.exp(-0.15 * (i - j) ** 2) + 1.5 * np.sin(1.7 * i + 0.9 * j)
    lengths = np.array([3, 2, 4, 3, 2])
    dtw, otam = full_video.dtw(scores, lengths), full_video.otam(scores, lengths)
    error = {"rtol": 0, "atol": 2e-6}  # 1.1e-6: the numbers are rounded to six digits
    averages = full_video.caption_average(scores, lengths)
    np.testing.assert_allclose(averages[0], [3.167184, 1.423246, 1.654808, 0.636569, 0.48821], **error)
    np.testing.assert_allclose(dtw[0], [25.908693, 17.54298, 2.889108, 3.276725, 2.087864], **error)
    np.testing.assert_allclose(dtw[2], [3.923478, 12.469442, 17.393087, 6.928778, 2.675784], **error)
    np.testing.assert_allclose(otam[0], [32.555359, 24.561421, 6.333628, 4.28624, 8.475253], **error)
    outputs = outputs_of(scores, [f"v{v}" for v, length in enumerate(lengths) for _ in range(length)])
    expected = {"R1": 3 / 14, "R5": 13 / 14, "R10": 1.0, "MR": 2.0}
    assert_same_numbers(RetrievalMetric().compute(outputs), expected, 1e-12)
    assert set(FullVideoRetrievalMetric().compute(outputs).values()) == {1.0}


@pytest.mark.parametrize("task", ["test_vtt_zs", "test_youcook_zs"])
def test_printed_retrieval_line(task: str) -> None:
    scores, printed = end_to_end(task)
    metric = RetrievalMetric()
    assert metric.summary(metric.compute(outputs_of(scores, [str(n) for n in range(len(scores))]))) in printed


def test_printed_full_video_lines() -> None:
    scores, printed = end_to_end("test_youcook_fullvideo_zs")
    files = json.loads((GOLDEN / "e2e_predict.json").read_text())["annotation_files"]
    records = json.loads(files["data/youcook/youcook_val.pkl(as json)"])
    video_ids = [record["id"].rpartition("_")[0] for record in records if not record["id"].startswith("missing")]
    metric = FullVideoRetrievalMetric()
    summary = metric.summary(metric.compute(outputs_of(scores, video_ids)))
    titles = [("Caption Average:", "Caption Average"), ("DTW:", "DTW"), ("OTAM", "OTAM")]
    lines = [f"{ours}: {printed[printed.index(theirs) + 1]}" for theirs, ours in titles]
    assert summary == " | ".join(lines)


def end_to_end(task: str) -> tuple[np.ndarray, list[str]]:
    """Scores that the original saved, and the lines it printed for them."""
    with np.load(GOLDEN / "e2e_predict.npz", allow_pickle=False) as arrays:
        scores = arrays[f"{task}/merged"]
    return scores, json.loads((GOLDEN / "e2e_predict.json").read_text())["results"][task]["stdout_tail"]
