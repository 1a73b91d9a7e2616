"""COIN: the reader of its file, and the windows of a video with the step of every second.

There are 778 steps. The file is {"database": {video id: {"subset": "training" or "testing",
"annotation": [{"id": "1" to "778", "segment": [start, end], "label": str}, ...]}}}, times in
seconds. A second without a step has class 0 ("O"). If segments overlap, the later one counts.

Legend: W windows, F video slots (feature rows), R rows and L seconds of a video.
"""

import random
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors import base
from mmpt.processors.aligner import video_name
from mmpt.processors.downstream import keep_with_features, warn_of_equal_captions
from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import WindowAligner, num_seconds
from mmpt.utils.validation import NotBlank, TimeSpan, read_json_as

NUM_STEPS = 778
IGNORE_INDEX = -100
"""Target of padded rows, as the cross-entropy expects it."""
SUBSETS = {Split.TRAIN: "training", Split.VALID: "testing", Split.TEST: "testing"}
"""Subset of each split. Fine-tuning is validated on the test videos, as released."""


class Step(BaseModel):
    """A step of a video in the file."""

    id: Annotated[int, Field(ge=1, le=NUM_STEPS)]
    segment: TimeSpan
    label: NotBlank


class _Video(BaseModel):
    subset: str
    annotation: list[Step]


class _File(BaseModel):
    database: dict[str, _Video]


def read_coin(path: str, subset: str) -> dict[str, list[Step]]:
    """Returns the steps of every video of a subset, in the order of the file.

    Raises:
        DataError: missing, another data set's file, a step beyond 1 to `NUM_STEPS`, bad times, a
            step without words, or no video in the subset.
    """
    remedy = (
        'It must be COIN\'s file, {"database": {video id: {"subset": ..., "annotation": [...]}}}. '
        "Download it again, or correct its path under `dataset`."
    )
    file = read_json_as(path, _File, remedy)
    videos = {}
    for video_id, video in file.database.items():
        if video.subset == subset:
            videos[video_id] = video.annotation
    if not videos:
        raise DataError(
            f"{path}: must hold videos of the subset {subset}, but holds none. Download it again."
        )
    return videos


def step_labels(path: str) -> list[str]:
    """Returns the words of steps 1, 2, ... of the testing subset. Warns of equal ones.

    Raises:
        DataError: as `read_coin`, or a step before the last one has no words.
    """
    labels: dict[int, str] = {}
    for steps in read_coin(path, SUBSETS[Split.TEST]).values():
        for step in steps:
            labels[step.id] = step.label
    last = max(labels, default=1)
    without = [step for step in range(1, last + 1) if step not in labels]
    if without:
        first = ", ".join(map(str, without[:5]))
        raise DataError(
            f"{path}: every step from 1 to {last} must have a label in the testing subset, but "
            f"{len(without)} have none (first: {first}). Download it again."
        )
    warn_of_equal_captions(path, labels.values())
    return [label for _, label in sorted(labels.items())]


Steps = list[Step]


@base.META_PROCESSORS.register
class COINActionSegmentationMetaProcessor(base.MetaProcessor):
    """The videos of the split's subset. An item is a video's id and its steps."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        steps_of = read_coin(self.list_path(), SUBSETS[split])
        items = list(steps_of.items())
        self.items = keep_with_features(items, lambda item: item[0], config, split)


@base.TEXT_PROCESSORS.register
class COINActionSegmentationTextProcessor(base.TextReader):
    """A reader that passes the steps on. Their words are the same for every video, so the predictor
    reads them.
    """

    def __call__(self, key: Steps) -> Steps:
        """Returns `key`."""
        return key


@base.ALIGNERS.register
class COINActionSegmentationAligner(WindowAligner):
    """An aligner that cuts a video into windows and adds the step of every second."""

    def __call__(
        self,
        video_key: str,
        video_feature: np.ndarray,
        text_feature: Steps,
        rng: random.Random,
    ) -> Any:
        """Returns the windows with a text of special tokens only. It draws nothing.

        caps and cmasks are [W, 4], vfeats [W, F, width], vmasks [W, F], targets int64 [W, F] (step,
        0 for none, IGNORE_INDEX on padding), video_targets int64 [L] (step, 0 for none), video_len
        R.
        """
        vfeats, vmasks, spans = self.build_windows(
            video_feature, name=video_name(video_key)
        )
        fps = self.config.feature_fps
        num_rows = len(video_feature)
        steps_R = steps_by_row(text_feature, num_rows, fps)
        steps_L = steps_by_row(text_feature, num_seconds(num_rows, fps))
        targets_WF = np.full(vmasks.shape, IGNORE_INDEX, dtype=np.int64)
        for targets_F, (start, end) in zip(targets_WF, spans, strict=True):
            targets_F[: end - start] = steps_R[start:end]
        # [CLS] [SEP] [PAD] [SEP]: the video tower sees the first [SEP] only, as released.
        cls, sep, pad, _ = self.special
        return {
            "caps": torch.tensor([cls, sep, pad, sep]).repeat(len(spans), 1),
            "cmasks": torch.tensor([False, True, False, True]).repeat(len(spans), 1),
            "vfeats": vfeats,
            "vmasks": vmasks,
            "targets": torch.from_numpy(targets_WF),
            "video_targets": torch.from_numpy(steps_L),
            "video_len": num_rows,
            "video_id": video_key,
        }


def steps_by_row(steps: Steps, num_rows: int, fps: float = 1) -> np.ndarray:
    """Returns the last step that touches each row, or 0, int64 [num_rows].

    Args:
        fps: rows per second.
    """
    steps_R = np.zeros(num_rows, dtype=np.int64)
    for step in steps:
        first, end = rows_between(*step.segment, fps)
        steps_R[first:end] = step.id
    return steps_R
