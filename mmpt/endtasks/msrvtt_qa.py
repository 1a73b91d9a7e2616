"""Five-way multiple choice on MSR-VTT: which of five answers is nearest to a video.

Equal scores share the credit.

Legend: B questions of a batch, N questions in all, A answers of each (5), T text slots, F video
slots, D hidden size.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.evaluators import CLIPS, METRICS, PREDICTORS, Metric, Number, Outputs, Predictor
from mmpt.evaluators.base import Prepared, finite
from mmpt.evaluators.functional import shared_credit
from mmpt.processors.aligner import video_name
from mmpt.processors.base import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, MetaProcessor
from mmpt.processors.downstream import DSAligner, TextProcessor, keep_with_features
from mmpt.utils.validation import NotBlank, Row, read_table

NUM_ANSWERS = 5
Question = tuple[int, list[str]]
"""Position of the right answer, from 0, and the five answers."""


class _Question(Row):
    vid_key: NotBlank
    a1: NotBlank
    a2: NotBlank
    a3: NotBlank
    a4: NotBlank
    a5: NotBlank
    answer: Annotated[int, Field(ge=0, lt=NUM_ANSWERS)]


@META_PROCESSORS.register
class MSRVTTQAMetaProcessor(MetaProcessor):
    """Questions of a tab-separated file with the columns vid_key, a1 to a5 and answer (from 0).

    A vid_key `msr7010` is the video `video7010`.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        items: list[tuple[str, Question]] = []
        for row in read_table(self.list_path(), _Question, delimiter="\t"):
            answers = [row.a1, row.a2, row.a3, row.a4, row.a5]
            items.append((row.vid_key.replace("msr", "video"), (row.answer, answers)))
        self.items = keep_with_features(items, lambda item: item[0], config, split)


@TEXT_PROCESSORS.register
class MSRVTTQATextProcessor(TextProcessor):
    """Word-piece ids of the five answers, with the position of the right one."""

    def __call__(self, key: Question) -> tuple[int, list[list[int]]]:
        """Returns (position, ids of each answer)."""
        answer, texts = key
        return answer, [self.encode(text) for text in texts]


@ALIGNERS.register
class MSRVTTQAAligner(DSAligner):
    """The first F seconds of a video with five answers; nothing is drawn."""

    def __call__(
        self, video_key: Any, video_feature: np.ndarray, text_feature: Any, rng: random.Random
    ) -> Any:
        """Returns caps and cmasks [5, T], vfeats [F, 512], vmasks [F] and answers int64 [1], the
        position of the right one.
        """
        answer, texts = text_feature
        batch = super().__call__(video_key, video_feature, texts[0], rng)
        caps, cmasks = self.build_texts(texts, name=video_name(video_key))
        return {**batch, "caps": caps, "cmasks": cmasks, "answers": torch.tensor([answer])}


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
        """Returns scores, predictions, answers and video_id."""
        choices = {"predictions": self.predictions, "answers": self.answers}
        return {"scores": self.scores, **choices, "video_id": np.array(self.video_ids)}


@PREDICTORS.register
class QAPredictor(Predictor[QAOutputs]):
    """Dot products of a video with its answers. Each video is embedded once.

    The model is a two-tower model such as `MMFusionSeparate`. Batches hold caps int64 [B, A, T],
    cmasks bool [B, A, T], vfeats float16/32 [B, F, 512], vmasks bool [B, F], answers int64 [B, 1]
    and video_id.
    """

    makes = QAOutputs
    reads = CLIPS | {"caps": 2, "cmasks": 2, "answers": 1}

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
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
        inputs: caps and cmasks [B, A, T], vfeats [B, F, 512], vmasks [B, F].
    """
    caps_BAT, cmasks_BAT = inputs["caps"], inputs["cmasks"]
    # The video tower reads only [CLS] and [SEP] of the text, which are those of any answer.
    video = inputs["vfeats"], inputs["vmasks"], caps_BAT[:, 0], cmasks_BAT[:, 0]
    video_BD = model.forward_video(*video)[0].float()
    text_ND = model.forward_text(caps_BAT.flatten(0, 1), cmasks_BAT.flatten(0, 1))[0].float()
    text_BAD = text_ND.unflatten(0, caps_BAT.shape[:2])
    return finite(torch.einsum("bd,bad->ba", video_BD, text_BAD), "questions")


@METRICS.register
class QAMetric(Metric[QAOutputs]):
    """Share of questions answered rightly."""

    takes = QAOutputs
    numbers = (Number("acc", "multiple choice, accuracy"),)

    def compute(self, outputs: QAOutputs) -> dict[str, float]:
        """Returns acc, the share of questions whose right answer has the largest score; ties share
        the credit.
        """
        return {"acc": float(shared_credit(outputs.scores, outputs.answers).mean())}

    def chance(self, outputs: QAOutputs) -> dict[str, float]:
        """Returns one in as many as there are answers."""
        return {"acc": 1 / outputs.scores.shape[1]}
