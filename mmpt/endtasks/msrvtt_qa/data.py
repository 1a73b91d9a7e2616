"""Five-way multiple choice on MSR-VTT: the questions file, its text processor and its aligner."""

from __future__ import annotations

import random
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.annotations import NotBlank, Row, read_table
from mmpt.processors.aligner import Aligner, video_name
from mmpt.processors.base import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, MetaProcessor
from mmpt.processors.downstream import TextProcessor, keep_with_features
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NUM_ANSWERS = 5
Question = tuple[int, list[str]]
"""Position of the right answer, from 0, and the five answers."""


@META_PROCESSORS.register
class MSRVTTQAMetaProcessor(MetaProcessor):
    """Questions of a tab-separated file with the columns vid_key, a1 to a5 and answer (from 0)."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.items = keep_with_features(
            read_questions(self.list_path()), lambda item: item[0], config, split
        )


@TEXT_PROCESSORS.register
class MSRVTTQATextProcessor(TextProcessor):
    """Word-piece ids of the five answers, with the position of the right one."""

    def __call__(self, key: Any) -> Any:
        """Returns (position, ids of each answer) for a `Question`."""
        answer, texts = key
        return answer, [self.encode(text) for text in texts]


@ALIGNERS.register
class MSRVTTQAAligner(Aligner):
    """The first F seconds of a video with five answers; nothing is drawn."""

    def __call__(
        self, video_key: Any, video_feature: np.ndarray, text_feature: Any, rng: random.Random
    ) -> ClipBatch:
        """Returns caps and cmasks [5, T], vfeats [F, 512], vmasks [F] and answers int64 [1], the
        right position.
        """
        name = video_name(video_key)
        answer, texts = text_feature
        caps, cmasks = self.build_texts(texts, name=name)
        vfeats, vmasks = self.build_video_seq(video_feature, name=name)
        return QABatch(
            caps=caps,
            cmasks=cmasks,
            vfeats=vfeats,
            vmasks=vmasks,
            video_id=video_key,
            answers=torch.tensor([answer]),
        )


class QABatch(ClipBatch, total=False):
    """A batch of multiple-choice questions."""

    answers: torch.Tensor  # int64 [..., 1]: position of the right answer


class _Question(Row):
    vid_key: NotBlank
    a1: NotBlank
    a2: NotBlank
    a3: NotBlank
    a4: NotBlank
    a5: NotBlank
    answer: Annotated[int, Field(ge=0, lt=NUM_ANSWERS)]


def read_questions(path: str) -> list[tuple[str, Question]]:
    """Returns video id and question of every row, in order.

    A vid_key `msr7010` is the video `video7010`.

    Raises:
        DataError: another layout, or an answer that is not 0 to 4.
    """
    items: list[tuple[str, Question]] = []
    for row in read_table(path, _Question, delimiter="\t"):
        answers = [row.a1, row.a2, row.a3, row.a4, row.a5]
        items.append((row.vid_key.replace("msr", "video"), (row.answer, answers)))
    if num_equal := sum(len(set(answers)) < NUM_ANSWERS for _, (_, answers) in items):
        logger.warning("%s: %d of %d questions have an answer twice", path, num_equal, len(items))
    return items
