"""Multiple choice and DiDeMo against recorded tensors, rankings and numbers of the original."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.config import DatasetConfig
from mmpt.endtasks.didemo.moments import (
    MOMENTS,
    NUMBER_PP,
    moment_metrics,
    moment_scores,
    rank_moments,
)
from mmpt.endtasks.msrvtt_qa import MSRVTTQAAligner, answer_scores
from tests.tiny_bert import tiny_bert

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("tree", ["norton", "mmpt"])
def test_aligner(tree: str, tmp_path: Path) -> None:
    config = DatasetConfig(bert_name=tiny_bert(tmp_path), max_video_len=8, max_len=32)
    texts = [[110, 111], [112], [113, 114, 115], [116], [117, 118]]
    with np.load(GOLDEN / f"aligners_{tree}.npz") as arrays:
        video = arrays["in_video_feature"]
        batch = MSRVTTQAAligner(config, Split.TEST)("vidA", video, (2, texts), random.Random(0))
        for name in ("caps", "cmasks", "vfeats", "vmasks", "answers"):
            np.testing.assert_array_equal(batch[name].numpy(), arrays[f"MSRVTTQAAligner/{name}"])
    assert batch["video_id"] == "vidA"


class Recorded:
    """Towers that give recorded vectors: of the videos, repeated five times in the recording, and
    of the answers.
    """

    def __init__(self, video: np.ndarray, text: np.ndarray):
        self.video, self.text = torch.from_numpy(video), torch.from_numpy(text)

    def forward_video(self, *_: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.video,)

    def forward_text(self, *_: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.text,)


def test_choices() -> None:
    with np.load(GOLDEN / "downstream.npz") as arrays:
        video, text, prediction = (
            arrays[f"qa_{name}"] for name in ("pooled_video", "pooled_text", "prediction")
        )
    video = video.reshape(4, 5, -1)[:, 0]
    empty = torch.zeros(4, 5, 1)
    inputs = {"caps": empty, "cmasks": empty, "vfeats": empty, "vmasks": empty}
    np.testing.assert_array_equal(
        answer_scores(Recorded(video, text), inputs).argmax(dim=1), prediction
    )


def test_ranking_of_moments() -> None:
    with np.load(GOLDEN / "downstream.npz") as arrays:
        states, text = arrays["didemo_hidden_video"][:, 1:31], arrays["didemo_pooled_text"]
        num_seconds = arrays["didemo_vmasks"].sum(axis=1)
    scores = moment_scores(np.einsum("nsd,nd->ns", states, text), num_seconds, "released")
    ranking = rank_moments(scores, num_seconds, "released")
    expected = json.loads((GOLDEN / "downstream.json").read_text())["didemo_ranked_segments"]
    assert [[list(MOMENTS[m]) for m in row if m >= 0] for row in ranking] == expected


def test_numbers_of_moments() -> None:
    recorded = json.loads((GOLDEN / "metrics.json").read_text())
    outputs, targets = recorded["didemo_inputs"]["outputs"], recorded["didemo_inputs"]["targets"]
    ranking = np.full((len(outputs), len(MOMENTS)), -1)
    for row, moments in zip(ranking, outputs, strict=True):
        row[: len(moments)] = [NUMBER_PP[first, last] for first, last in moments]
    numbers = moment_metrics(ranking, np.array([target["times"] for target in targets]))
    assert numbers == pytest.approx(recorded["results"]["DiDeMoMetric"], abs=1e-12)
