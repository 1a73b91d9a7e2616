"""Five-way multiple choice on MSR-VTT: the answer that scores highest with a video is chosen.

Equal scores share the credit.

Legend: B questions of a batch, N questions in all, A answers of each (5), T text slots, F video
slots, D hidden size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt.evaluators import (
    CLIPS,
    METRICS,
    PREDICTORS,
    Metric,
    MetricValue,
    Outputs,
    Predictor,
)
from mmpt.evaluators.base import MetricValues, Part, Prepared, require_finite
from mmpt.evaluators.functional import shared_credit
from mmpt.reporting import EvaluationRun, Section, prediction_sections


@dataclass(frozen=True, kw_only=True)
class QAOutputs(Outputs):
    """The score of every answer to every question."""

    scores: np.ndarray  # float32 [N, A]
    answers: np.ndarray  # int64 [N]: position of the right answer
    video_ids: list[str]  # [N]

    @property
    def predictions(self) -> np.ndarray:
        """Position of the best answer, the first of equal ones (as released), int64 [N]."""
        return self.scores.argmax(axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns scores, predictions, answers and video_id."""
        return {
            "scores": self.scores,
            "predictions": self.predictions,
            "answers": self.answers,
            "video_id": np.array(self.video_ids),
        }


@PREDICTORS.register
class QAPredictor(Predictor[QAOutputs]):
    """A predictor of dot products of a video with its answers. Each video is embedded once.

    The model is a two-tower model such as `MMFusionSeparate`. Batches hold caps int64 [B, A, T],
    cmasks bool [B, A, T], vfeats float16/32 [B, F, width], vmasks bool [B, F], answers int64 [B, 1]
    and video_id.
    """

    output_type = QAOutputs
    reads = CLIPS | {"caps": 2, "cmasks": 2, "answers": 1}

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the scores of each batch, with the right answers."""
        for batch, inputs in batches:
            yield {
                "scores": answer_scores(model, inputs).cpu(),
                "answers": batch["answers"][:, 0],
                "video_ids": batch["video_id"],
            }


def answer_scores(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns the scores of the answers in a batch, float32 [B, A].

    Args:
        model: with `forward_video` and `forward_text` of `MMFusionSeparate`.
        inputs: caps and cmasks [B, A, T], vfeats [B, F, width], vmasks [B, F].
    """
    caps_BAT, cmasks_BAT = inputs["caps"], inputs["cmasks"]
    num_videos, num_answers, _ = caps_BAT.shape
    # The video tower reads only [CLS] and [SEP] of the text, which all answers share.
    video_BD, *_ = model.forward_video(
        inputs["vfeats"], inputs["vmasks"], caps_BAT[:, 0], cmasks_BAT[:, 0]
    )
    # The text tower takes the answers of all videos as one batch of R texts.
    caps_RT = caps_BAT.flatten(0, 1)
    cmasks_RT = cmasks_BAT.flatten(0, 1)
    text_RD, *_ = model.forward_text(caps_RT, cmasks_RT)
    text_BAD = text_RD.float().unflatten(0, (num_videos, num_answers))
    scores_BA = torch.einsum("bd,bad->ba", video_BD.float(), text_BAD)
    return require_finite(scores_BA, "questions")


@METRICS.register
class QAMetric(Metric[QAOutputs]):
    """The share of questions that are answered correctly."""

    input_type = QAOutputs
    numbers = (MetricValue("acc", "multiple choice, accuracy"),)

    def compute(self, outputs: QAOutputs) -> MetricValues:
        """Returns acc, the share of questions whose right answer has the largest score. Answers
        with equal scores share the credit.
        """
        credit_N = shared_credit(outputs.scores, outputs.answers)
        return {"acc": float(credit_N.mean())}

    def chance(self, outputs: QAOutputs) -> MetricValues:
        """Returns one divided by the number of answers."""
        return {"acc": 1 / outputs.scores.shape[1]}


@prediction_sections.register
def _prediction_sections(outputs: QAOutputs, run: EvaluationRun) -> list[Section]:
    from mmpt.endtasks.msrvtt_qa.report import choice_sections  # deferred: matplotlib

    return choice_sections(outputs, run)
