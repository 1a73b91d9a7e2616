"""COIN: which of 778 steps, or none, is done in every second of a video; the whole video is read in
sliding windows.

The file is {"database": {video id: {"subset": "training" or "testing", "annotation": [{"id": "1" to
"778", "segment": [start, end], "label": str}, ...]}}}, times in seconds. Class 0 ("O") is a second
without a step; later segments overwrite earlier ones.

Legend: W windows, F video slots (seconds), L seconds of a video.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, Field

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.aligner import video_name
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    MetaProcessor,
    TextReader,
)
from mmpt.processors.downstream import keep_with_features
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.log import get_logger
from mmpt.utils.validation import NotBlank, Stretch, read_json_as

logger = get_logger(__name__)

NUM_STEPS = 778
IGNORE_INDEX = -100
"""Target of padded seconds, as the cross-entropy expects it."""
SUBSETS = {Split.TRAIN: "training", Split.VALID: "testing", Split.TEST: "testing"}
"""Subset of each split. Fine-tuning is validated on the test videos, as released."""


class Segment(NamedTuple):
    """A stretch of a video in which a step is done."""

    start_s: float
    end_s: float
    step: int
    """1 to `NUM_STEPS`."""


@dataclass(frozen=True, kw_only=True)
class CoinAnnotation:
    """Content of the file."""

    videos: dict[str, dict[str, list[Segment]]]
    """Subset -> video id -> segments in the order of the file."""
    labels: dict[int, str]
    """Step -> its words, of the steps in the testing subset."""


class SegmentationBatch(ClipBatch, total=False):
    """A video of COIN; caps and cmasks are [W, 4], vfeats [W, F, 512] and vmasks [W, F]."""

    targets: torch.Tensor  # int64 [W, F]: step, 0 for none, IGNORE_INDEX on padding
    video_targets: torch.Tensor  # int64 [L]: step, 0 for none
    video_len: int  # L


@META_PROCESSORS.register
class COINActionSegmentationMetaProcessor(MetaProcessor):
    """One video of the split's subset per item: its id and its segments."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        path, subset = self.list_path(), SUBSETS[split]
        videos = read_coin(path).videos.get(subset, {})
        if not videos:
            raise DataError(
                f"{path}: must hold videos of the subset {subset}, but holds none. Download it "
                "again."
            )
        self.items = keep_with_features(list(videos.items()), lambda item: item[0], config, split)


@TEXT_PROCESSORS.register
class COINActionSegmentationTextProcessor(TextReader):
    """The segments as they are: the words of steps are the same for every video, and belong to the
    predictor.
    """

    def __call__(self, key: list[Segment]) -> list[Segment]:
        """Returns `key`."""
        return key


@ALIGNERS.register
class COINActionSegmentationAligner(WindowAligner):
    """Windows of a video, and the step of every second."""

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: list[Segment],
        rng: random.Random,
    ) -> SegmentationBatch:
        """Returns the windows with a text of special tokens only; nothing is drawn."""
        vfeats, vmasks, spans = self.build_windows(video_feature, name=video_name(video_key))
        steps_L = steps_by_second(text_feature, len(video_feature))
        targets_WF = np.full(vmasks.shape, IGNORE_INDEX, dtype=np.int64)
        for targets_F, (start, end) in zip(targets_WF, spans, strict=True):
            targets_F[: end - start] = steps_L[start:end]
        # [CLS] [SEP] [PAD] [SEP]: the video tower sees the first [SEP] only, as released.
        cls, sep, pad, _ = self.special
        caps = torch.tensor([cls, sep, pad, sep]).repeat(len(spans), 1)
        cmasks = torch.tensor([False, True, False, True]).repeat(len(spans), 1)
        return SegmentationBatch(
            caps=caps,
            cmasks=cmasks,
            vfeats=vfeats,
            vmasks=vmasks,
            targets=torch.from_numpy(targets_WF),
            video_targets=torch.from_numpy(steps_L),
            video_len=len(video_feature),
            video_id=video_key,
        )


def steps_by_second(segments: list[Segment], num_seconds: int) -> np.ndarray:
    """Returns the step of every second, int64 [num_seconds]: of the last segment that touches it,
    or 0.
    """
    steps_L = np.zeros(num_seconds, dtype=np.int64)
    for segment in segments:
        steps_L[math.floor(segment.start_s) : math.ceil(segment.end_s)] = segment.step
    return steps_L


class _Step(BaseModel):
    id: Annotated[int, Field(ge=1, le=NUM_STEPS)]
    segment: Stretch
    label: NotBlank


class _Video(BaseModel):
    subset: str
    annotation: list[_Step]


class _File(BaseModel):
    database: dict[str, _Video]


def read_coin(path: str) -> CoinAnnotation:
    """Returns the videos and the words of the steps.

    Raises:
        DataError: missing, another data set's file, a step beyond 1 to `NUM_STEPS`, bad times, or a
            step without words.
    """
    remedy = (
        'It must be COIN\'s file, {"database": {video id: {"subset": ..., "annotation": [...]}}}. '
        "Download it again, or correct its path under `dataset`."
    )
    videos: dict[str, dict[str, list[Segment]]] = {}
    labels: dict[int, str] = {}
    ambiguous: set[int] = set()
    for video_id, video in read_json_as(path, _File, remedy).database.items():
        segments = [Segment(*step.segment, step.id) for step in video.annotation]
        videos.setdefault(video.subset, {})[video_id] = segments
        if video.subset != SUBSETS[Split.TEST]:
            continue
        for step in video.annotation:
            if labels.get(step.id, step.label) != step.label:
                ambiguous.add(step.id)
            labels[step.id] = step.label
    if ambiguous:
        what = "%s: %d steps have several labels (first: %d); the last one counts"
        logger.warning(what, path, len(ambiguous), min(ambiguous))
    return CoinAnnotation(videos=videos, labels=labels)


def step_labels(path: str) -> list[str]:
    """Returns the words of steps 1, 2, ... of the testing subset; equal ones are counted in a
    warning.

    Raises:
        DataError: as `read_coin`, or a step below the last one has no words.
    """
    labels = read_coin(path).labels
    if not labels:
        raise DataError(
            f"{path}: must hold steps in the subset {SUBSETS[Split.TEST]}, but holds none. "
            "Download it again."
        )
    last = max(labels)
    if without := [str(step) for step in range(1, last + 1) if step not in labels]:
        raise DataError(
            f"{path}: every step from 1 to {last} must have a label in the testing subset, but "
            f"{len(without)} have none (first: {', '.join(without[:5])}). Download it again."
        )
    repeated = last - len(set(labels.values()))
    if repeated:
        logger.warning(
            "%s: %d of the %d steps have the words of another step", path, repeated, last
        )
    return [labels[step] for step in range(1, last + 1)]
