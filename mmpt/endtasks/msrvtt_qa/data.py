"""MSR-VTT's multiple-choice test: the questions, and the tensors of a video with five answers."""

import random
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.processors.aligner import video_name
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    MetaProcessor,
)
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
    """The questions of a tab-separated file with the columns vid_key, a1 to a5 and answer (from 0).

    A vid_key `msr7010` is the video `video7010`.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        items: list[tuple[str, Question]] = []
        for row in read_table(self.list_path(), _Question, delimiter="\t"):
            video_id = row.vid_key.replace("msr", "video")
            answers = [row.a1, row.a2, row.a3, row.a4, row.a5]
            items.append((video_id, (row.answer, answers)))
        self.items = keep_with_features(items, lambda item: item[0], config, split)


@TEXT_PROCESSORS.register
class MSRVTTQATextProcessor(TextProcessor):
    """A reader of the five answers as word-piece ids, with the position of the right one."""

    def __call__(self, key: Question) -> tuple[int, list[list[int]]]:
        """Returns (position, ids of each answer)."""
        answer, texts = key
        return answer, [self.encode(text) for text in texts]


@ALIGNERS.register
class MSRVTTQAAligner(DSAligner):
    """An aligner of the first F feature rows of a video with five answers. It draws nothing."""

    def __call__(
        self,
        video_key: Any,
        video_feature: np.ndarray,
        text_feature: Any,
        rng: random.Random,
    ) -> Any:
        """Returns caps and cmasks [5, T], vfeats [F, width], vmasks [F] and answers int64 [1], the
        position of the right one.
        """
        answer, texts = text_feature
        batch = super().__call__(video_key, video_feature, texts[0], rng)
        caps, cmasks = self.build_texts(texts, name=video_name(video_key))
        return {
            **batch,
            "caps": caps,
            "cmasks": cmasks,
            "answers": torch.tensor([answer]),
        }
