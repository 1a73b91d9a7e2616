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
from typing import Any, NamedTuple

import numpy as np
import torch

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
from mmpt.processors.tensorise import TextSlots
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.io import read_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NUM_STEPS = 778
IGNORE_INDEX = -100
"""Target of padded seconds, as the cross-entropy expects it."""
SUBSETS = {Split.TRAIN: "training", Split.VALID: "testing", Split.TEST: "testing"}
"""Subset of the file that a split reads; fine-tuning is validated on the test videos, as released."""


class Segment(NamedTuple):
    """A stretch of a video in which a step is done."""

    start_s: float
    end_s: float
    step: int
    """1 to `NUM_STEPS`."""


@dataclass(frozen=True, kw_only=True)
class CoinAnnotation:
    """What the file says."""

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
                f"{path}: must hold videos of the subset {subset}, but holds none. Download it again."
            )
        self.items = keep_with_features(list(videos.items()), lambda item: item[0], config, split)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[str, list[Segment]]:
        return self.items[index]


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
        caps, cmasks = self._windows_text(len(spans))
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

    def _windows_text(self, num_windows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns [CLS] [SEP] [PAD] [SEP], of which the video tower sees the first [SEP] only, as
        released.
        """
        slots = TextSlots(num_windows, 4, self.special)
        slots.caps_BT[:, 3] = self.special.sep
        cmasks = torch.tensor([False, True, False, True]).repeat(num_windows, 1)
        return torch.from_numpy(slots.caps_BT), cmasks


def steps_by_second(segments: list[Segment], num_seconds: int) -> np.ndarray:
    """Returns the step of every second, int64 [num_seconds]: of the last segment that touches it,
    or 0.
    """
    steps_L = np.zeros(num_seconds, dtype=np.int64)
    for segment in segments:
        steps_L[math.floor(segment.start_s) : math.ceil(segment.end_s)] = segment.step
    return steps_L


def read_coin(path: str) -> CoinAnnotation:
    """Returns the videos and the words of the steps.

    Raises:
        DataError: missing, another data set's file, a step beyond 1 to `NUM_STEPS`, bad times, or a
            step without words.
    """
    value = read_json(path)
    database = value.get("database") if isinstance(value, dict) else None
    if not isinstance(database, dict) or not all(_is_video(video) for video in database.values()):
        raise DataError(
            f'{path}: must be COIN\'s file, {{"database": {{video id: {{"subset": ..., "annotation": [...]}}}}}}, but '
            "is something else. Correct its path under `dataset`."
        )
    videos: dict[str, dict[str, list[Segment]]] = {}
    labels: dict[int, str] = {}
    ambiguous: set[int] = set()
    for video_id, video in database.items():
        name = f"{path}: video {video_id}"
        rows = [_read_row(row, name) for row in video["annotation"]]
        videos.setdefault(video["subset"], {})[video_id] = [segment for segment, _ in rows]
        if video["subset"] == SUBSETS[Split.TEST]:
            ambiguous |= {
                segment.step for segment, label in rows if labels.get(segment.step, label) != label
            }
            labels |= {segment.step: label for segment, label in rows}
    if ambiguous:
        first = min(ambiguous)
        logger.warning(
            "%s: %d steps have several labels (first: %d); the last one counts",
            path,
            len(ambiguous),
            first,
        )
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
            f"{path}: must hold steps in the subset {SUBSETS[Split.TEST]}, but holds none. Download it again."
        )
    last = max(labels)
    if without := [str(step) for step in range(1, last + 1) if step not in labels]:
        raise DataError(
            f"{path}: every step from 1 to {last} must have a label in the testing subset, but {len(without)} have "
            f"none (first: {', '.join(without[:5])}). Download it again."
        )
    repeated = last - len(set(labels.values()))
    if repeated:
        logger.warning(
            "%s: %d of the %d steps have the words of another step", path, repeated, last
        )
    return [labels[step] for step in range(1, last + 1)]


def _is_video(video: Any) -> bool:
    fields = video if isinstance(video, dict) else {}
    return isinstance(fields.get("subset"), str) and isinstance(fields.get("annotation"), list)


def _read_row(row: Any, name: str) -> tuple[Segment, str]:
    """Returns one annotation as a segment and its label."""
    fields = row if isinstance(row, dict) else {}
    step, times, label = str(fields.get("id")), _stretch(fields.get("segment")), fields.get("label")
    if not step.isdecimal() or not 1 <= int(step) <= NUM_STEPS:
        raise DataError(
            f"{name}: the `id` of a step must be 1 to {NUM_STEPS}, but one is {fields.get('id')!r:.40}."
        )
    if not isinstance(label, str) or not label.strip():
        raise DataError(
            f"{name}: step {step} must have a `label`, but it is {label!r:.40}. Correct or remove it."
        )
    if times is None:
        raise DataError(
            f"{name}: the `segment` of step {step} must be [start, end] in seconds, 0 <= start <= end, but is "
            f"{fields.get('segment')!r:.60}. Correct or remove it."
        )
    return Segment(*times, int(step)), label


def _stretch(value: Any) -> tuple[float, float] | None:
    """Returns `value` if it is [start, end] with 0 <= start <= end, both finite."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    if not all(
        isinstance(time_s, int | float) and not isinstance(time_s, bool) for time_s in value
    ):
        return None
    start_s, end_s = value
    return (float(start_s), float(end_s)) if 0 <= start_s <= end_s < math.inf else None
