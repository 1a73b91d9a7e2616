"""Multiple choice: which of five answers is nearest to a video; equal scores share the credit.

Legend: B questions of a batch, N questions in all, A answers of each (5), T text slots, F video slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import nn

from mmpt.endtasks.msrvtt_qa.data import QABatch
from mmpt.evaluators.base import (
    METRICS,
    PREDICTORS,
    BatchLoader,
    Metric,
    Number,
    Outputs,
    Predictor,
)
from mmpt.evaluators.functional import shared_credit
from mmpt.evaluators.inference import check_finite, check_not_empty, evaluating, model_inputs
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class QAOutputs(Outputs):
    """A score of every answer to every question."""

    scores: np.ndarray  # float32 [N, A]
    answers: np.ndarray  # int64 [N]: position of the right answer
    video_ids: list[str]  # [N]

    @property
    def predictions(self) -> np.ndarray:
        """Position of the best answer, the first of equal ones (as released), int64 [N]."""
        return self.scores.argmax(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scores, predictions, answers and video_id."""
        return {
            "scores": self.scores,
            "predictions": self.predictions,
            "answers": self.answers,
            "video_id": np.array(self.video_ids),
        }


@PREDICTORS.register
class QAPredictor(Predictor[QAOutputs]):
    """Dot products of a video with its answers; each video is embedded once (the release embeds it once per answer)."""

    makes = QAOutputs
    reads: ClassVar[Mapping[str, int]] = {
        "caps": 2,
        "cmasks": 2,
        "vfeats": 2,
        "vmasks": 1,
        "answers": 1,
    }

    def __call__(self, model: nn.Module, loader: BatchLoader, device: torch.device) -> QAOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: a two-tower model such as `MMFusionSeparate`.
            loader: batches with caps int64 [B, A, T], cmasks bool [B, A, T], vfeats float16/32 [B, F, 512],
                vmasks bool [B, F], answers int64 [B, 1] and video_id.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        scores: list[torch.Tensor] = []
        answers: list[torch.Tensor] = []
        video_ids: list[str] = []
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "test batches embedded", logger):
                scores.append(answer_scores(model, model_inputs(batch, model, device)).cpu())
                answers.append(cast(QABatch, batch)["answers"][:, 0])
                video_ids.extend(batch["video_id"])
        check_not_empty(video_ids)
        return QAOutputs(
            scores=torch.cat(scores).numpy(),
            answers=torch.cat(answers).numpy(),
            video_ids=video_ids,
        )


def answer_scores(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the scores of the answers in a batch, float32 [B, A].

    Args:
        model: with `forward_video` and `forward_text` of `MMFusionSeparate`.
        inputs: caps and cmasks [B, A, T], vfeats [B, F, 512], vmasks [B, F].
    """
    caps_BAT, cmasks_BAT = inputs["caps"], inputs["cmasks"]
    # Of the text, the video tower reads [CLS] and [SEP] only: those of any answer.
    video_BD = model.forward_video(
        inputs["vfeats"], inputs["vmasks"], caps_BAT[:, 0], cmasks_BAT[:, 0]
    )[0].float()
    text_BAD = model.forward_text(caps_BAT.flatten(0, 1), cmasks_BAT.flatten(0, 1))[0].float()
    check_finite("videos", video_BD)
    check_finite("answers", text_BAD)
    return torch.einsum("bd,bad->ba", video_BD, text_BAD.unflatten(0, caps_BAT.shape[:2]))


@METRICS.register
class QAMetric(Metric[QAOutputs]):
    """Share of questions answered rightly."""

    takes = QAOutputs
    numbers = (Number("acc", "multiple choice, accuracy"),)

    def compute(self, outputs: QAOutputs) -> dict[str, float]:
        """Return acc, the share of questions whose right answer has the largest score; ties share the credit."""
        return {"acc": float(shared_credit(outputs.scores, outputs.answers).mean())}

    def chance(self, outputs: QAOutputs) -> dict[str, float]:
        """Return one in as many as there are answers."""
        return {"acc": 1 / outputs.scores.shape[1]}

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the line of the release."""
        return f"acc: {result['acc']:.4f}"
