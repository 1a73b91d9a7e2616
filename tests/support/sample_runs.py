"""Hand-made evaluations with known results, one per kind of outputs, and logs of a training run."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from mmpt.config import EvalConfig, RunConfig
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.endtasks.crosstask.data import Steps, TaskVideo
from mmpt.endtasks.crosstask.evaluation import LocalisationOutputs, PlacedVideo
from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.how2align.data import Sentence
from mmpt.endtasks.how2align.evaluation import AlignedVideo, How2AlignOutputs
from mmpt.endtasks.msrvtt_qa.evaluation import QAOutputs
from mmpt.evaluators import (
    METRICS,
    BGRetrievalOutputs,
    ClipId,
    Outputs,
    RetrievalOutputs,
)
from mmpt.reporting import EvaluationRun, KeyFrames
from mmpt.retrieval import Plan
from mmpt.utils.metrics_log import MetricsLog

NASTY = 'stir <b>the</b> "soup" & <script>alert(1)</script>'
"""A caption that breaks a page if it is not escaped."""


def make_run(
    outputs: Outputs,
    items: Sequence[tuple[Any, Any]],
    *metrics: str,
    task: str = "test_mine_zs",
    folder: str = "runs/a",
    videos: Path | None = None,
) -> EvaluationRun:
    """Returns an evaluation of two checkpoints. The second one is a little better."""
    computed = {
        name: METRICS.get(name, "metric")().compute(outputs) for name in metrics
    }
    worse = {}
    for name, numbers in computed.items():
        worse[name] = {key: value * 0.9 for key, value in numbers.items()}
    rows = [
        {
            "checkpoint": f"{folder}/{name}/checkpoint_best.pt",
            "fingerprint": name * 32,
            "data_fingerprint": "d" * 64,
            "num_items": len(items),
            "num_missing": 0,
            "metrics": numbers,
        }
        for name, numbers in (("old", worse), ("new", computed))
    ]
    return EvaluationRun(
        config=RunConfig(
            path=f"projects/{task}.yaml",
            metric=metrics,
            eval=EvalConfig(save_path=folder),
        ),
        rows=rows,
        names=["old", "new"],
        chance={
            name: METRICS.get(name, "metric")().chance(outputs) for name in metrics
        },
        best=1,
        best_value=1.0,
        outputs=outputs,
        model=nn.Identity(),
        dataset=SimpleNamespace(meta=items),
        positions=range(len(items)),
        frames=KeyFrames(videos),
    )


def retrieval(folder: str = "runs/a", videos: Path | None = None) -> EvaluationRun:
    """Returns a run with three videos of four clips.

    The clip of caption 5 has the last rank. All other clips have the first rank.
    """
    vectors = np.eye(12, dtype=np.float32)
    text = vectors.copy()
    text[5] = 1 - vectors[5]
    clips = [
        ClipId(f"video{place // 4}", 10 * (place % 4), 10 * (place % 4) + 8)
        for place in range(12)
    ]
    captions = [f"caption number {place}" for place in range(12)]
    captions[5] = NASTY
    outputs = RetrievalOutputs(pooled_text=text, pooled_video=vectors, clips=clips)
    items = list(zip((tuple(clip) for clip in clips), captions, strict=True))
    return make_run(
        outputs,
        items,
        "RetrievalMetric",
        "FullVideoRetrievalMetric",
        folder=folder,
        videos=videos,
    )


def background() -> EvaluationRun:
    """Returns a run with three whole videos. The third paragraph is most similar to the first
    video.
    """
    vectors = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    text = np.repeat(np.eye(3, dtype=np.float32)[[0, 1, 0]], 2, axis=0)
    text[4:] += 0.1 * np.eye(3, dtype=np.float32)[2]
    outputs = BGRetrievalOutputs(
        pooled_text=text,
        pooled_video=vectors,
        num_captions=np.array([2, 2, 2]),
        num_windows=np.array([4, 4, 4]),
        video_ids=["a", "b", "c"],
    )
    return make_run(
        outputs,
        [(v, [f"first of {v}", f"second of {v}"]) for v in "abc"],
        "FullVideoBGRetrievalMetric",
    )


def choices() -> EvaluationRun:
    """Returns a run with four questions. Answers 2 and 3 are wrong, by margins of 3 and 1."""
    scores = np.eye(5, dtype=np.float32)[:4] * 5
    scores[2, 4], scores[3, 0] = 8, 6
    outputs = QAOutputs(
        scores=scores, answers=np.arange(4), video_ids=[f"video{n}" for n in range(4)]
    )
    questions = []
    for n in range(4):
        answers = [f"answer {a} of {n}" for a in range(5)]
        questions.append((f"video{n}", (n, answers)))
    return make_run(outputs, questions, "QAMetric")


def moments() -> EvaluationRun:
    """Returns a run with two queries. The first finds its moment (piece 2). The second finds piece
    5 instead of piece 0.
    """
    scores = np.zeros((2, 30), dtype=np.float32)
    scores[0, 10:15], scores[1, 25:30] = 3, 3
    times = np.array([[[2, 2]] * 4, [[0, 0]] * 3 + [[0, 1]]])
    outputs = MomentOutputs(
        second_scores=scores,
        num_seconds=np.array([30, 30]),
        times=times,
        video_ids=["a", "b"],
    )
    return make_run(
        outputs, [("a", "the cat jumps"), ("b", "a dog comes in")], "DiDeMoMetric"
    )


def segments() -> EvaluationRun:
    """Returns a run with two videos. Half of the seconds of the first one are right, and all of the
    second one.
    """
    targets = np.repeat([0, 3, 0, 7, 0, 3, 0, 7], 10)
    predictions = targets.copy()
    predictions[:20] = 7
    right = (predictions == targets).astype(float)
    outputs = SegmentationOutputs(
        predictions=predictions,
        targets=targets,
        credits=right,
        step_credits=right,
        num_classes=8,
        video_ids=["halfright", "allright"],
        video_lengths=[40, 40],
    )
    return make_run(
        outputs, [("halfright", []), ("allright", [])], "COINActionSegmentationMetric"
    )


def placements() -> EvaluationRun:
    """Returns a run with two videos of two steps. No step of the first one is found, and both of
    the second one.
    """
    done = np.zeros((20, 2), dtype=np.uint8)
    done[2:6, 0], done[10:15, 1] = 1, 1
    wrong, right = np.zeros_like(done), np.zeros_like(done)
    wrong[0, 0], wrong[19, 1], right[3, 0], right[12, 1] = 1, 1, 1, 1
    videos = [
        PlacedVideo("113", "missed", done, wrong),
        PlacedVideo("113", "found", done, right),
    ]
    steps = Steps(["pour milk", "stir"], [])
    items = [(TaskVideo(video.video_id, video.task), steps) for video in videos]
    return make_run(LocalisationOutputs(videos=videos), items, "CrossTaskMetric")


def alignments() -> EvaluationRun:
    """Returns a run with two videos of 60 s. Sentence 1 is predicted 30 s late, and sentence 2 is
    not shown in the video.
    """
    rng = np.random.default_rng(0)
    spans = np.array([[5.0, 12.0], [15.0, 20.0], [30.0, 33.0], [40.0, 50.0]])
    similarity = rng.normal(0, 0.05, (4, 60)).astype(np.float32)
    for row, at in enumerate((8, 50, 3, 45)):
        similarity[row, at - 2 : at + 3] += 0.6
    covered = np.ones((4, 60), dtype=bool)
    covered[0, 40:] = False
    similarity[~covered] = 0
    aligned = np.array([True, True, False, True])
    videos = [
        AlignedVideo(name, similarity, covered, aligned, spans)
        for name in ("one", "two")
    ]
    sentences = [
        Sentence(bool(a), s, e, f"sentence {n}")
        for n, (a, (s, e)) in enumerate(zip(aligned, spans, strict=True))
    ]
    return make_run(
        How2AlignOutputs(videos=videos),
        [(v.video_id, sentences) for v in videos],
        "How2AlignMetric",
    )


def every_kind() -> dict[str, EvaluationRun]:
    """Returns one run per kind of outputs."""
    return {
        maker.__name__: maker()
        for maker in (
            retrieval,
            background,
            choices,
            moments,
            segments,
            placements,
            alignments,
        )
    }


STEPS = range(10, 101, 10)


def term(step: int) -> float:
    """Returns the value of the loss term at a step."""
    return 2 + 5 * math.exp(-step / 30)


def write_training(save_dir: Path) -> None:
    """Writes metrics under fairseq's names, and three plans with their hardness."""
    log = MetricsLog(save_dir, num_updates=0)
    for split, steps in (("train", STEPS), ("valid", (50, 100))):
        for step in steps:
            terms = {"clip_caption": term(step), "video_paragraph": 0.1 * term(step)}
            speed = {"temperature": 0.07, "wps": 1000 + step}
            log.append(split, 1, step, {"loss": 1.1 * term(step)} | terms | speed)
    for epoch in (1, 2, 3):
        hardness = {
            "mean_cosine": 0.6 + 0.1 * epoch,
            "random_mean_cosine": 0.5,
            "coverage": 0.7,
        }
        plan = Plan(epoch, "fingerprint", "list", 2, ((0, 1),), hardness)
        plan.save(save_dir / "retri", ["a", "b"])
