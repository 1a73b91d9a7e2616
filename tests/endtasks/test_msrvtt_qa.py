"""Multiple choice against one answer at a time, and its rule for equal scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmpt.config import DatasetConfig
from mmpt.endtasks.msrvtt_qa import QABatch, QAMetric, QAOutputs, QAPredictor
from mmpt.errors import CheckpointError

CPU = torch.device("cpu")
A = 5


class Towers(nn.Module):
    """Sums of word vectors and of seconds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 8)
        self.videos = 0

    def forward_text(self, caps: torch.Tensor, cmasks: torch.Tensor) -> tuple[torch.Tensor]:
        return ((self.words(caps) * cmasks[..., None]).sum(1),)

    def forward_video(
        self, vfeats: torch.Tensor, vmasks: torch.Tensor, caps: torch.Tensor, cmasks: torch.Tensor
    ) -> tuple[torch.Tensor]:
        self.videos += len(vfeats)
        return ((vfeats * vmasks[..., None]).sum(1) + self.words(caps[:, 0]),)


def batches(*sizes: int) -> list[QABatch]:
    g = torch.Generator().manual_seed(1)
    made = []
    for size in sizes:
        caps = torch.randint(4, 50, (size, A, 7), generator=g)
        caps[:, :, :2] = torch.tensor([1, 2])
        made.append(
            QABatch(
                caps=caps,
                cmasks=torch.rand(size, A, 7, generator=g) < 0.8,
                vfeats=torch.randn(size, 4, 8, generator=g).half(),
                vmasks=torch.rand(size, 4, generator=g) < 0.7,
                video_id=[f"v{n}" for n in range(size)],
                answers=torch.randint(0, A, (size, 1), generator=g),
            )
        )
    return made


def one_score(towers: Towers, b: QABatch, n: int, k: int) -> torch.Tensor:
    """Score of answer `k` to question `n`, the video embedded with it."""
    caps, cmasks = b["caps"][[n], k], b["cmasks"][[n], k]
    video = towers.forward_video(b["vfeats"][[n]].float(), b["vmasks"][[n]], caps, cmasks)[0]
    return video[0] @ towers.forward_text(caps, cmasks)[0][0]


def test_scores_are_those_of_one_answer_at_a_time_and_videos_run_once() -> None:
    towers, loader = Towers(), batches(4, 3)
    outputs = QAPredictor(DatasetConfig())(towers, loader, CPU)
    assert towers.videos == 7
    with torch.no_grad():
        expected = [
            [float(one_score(towers, b, n, k)) for k in range(A)]
            for b in loader
            for n in range(len(b["caps"]))
        ]
    np.testing.assert_allclose(outputs.scores, expected, rtol=1e-5, atol=1e-5)  # 2e-6
    assert outputs.answers.tolist() == torch.cat([b["answers"] for b in loader]).flatten().tolist()
    assert outputs.arrays()["predictions"].tolist() == np.argmax(expected, axis=1).tolist()


@pytest.mark.parametrize("answer", range(A))
def test_a_collapsed_model_is_at_chance_wherever_the_answers_are(answer: int) -> None:
    outputs = QAOutputs(
        scores=np.ones((9, A), np.float32), answers=np.full(9, answer), video_ids=["v"] * 9
    )
    assert QAMetric().compute(outputs) == QAMetric().chance(outputs) == {"acc": pytest.approx(0.2)}


def test_bad_vectors() -> None:
    towers = Towers()
    nn.init.constant_(towers.words.weight, float("nan"))
    with pytest.raises(CheckpointError, match="3 of 3 videos are not finite"):
        QAPredictor(DatasetConfig())(towers, batches(3), CPU)
