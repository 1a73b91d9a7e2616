"""CrossTask: when each of a task's ordered steps is done in a video; the whole video is read in
sliding windows.

Files: `videos.csv` (task,video,url), tasks in blocks of six lines (id, title, url, number of steps,
the steps between commas, a blank line), and one `<task>_<video>.csv` per annotated video (step from
1,start,end in seconds).

Training and test are drawn as released: of the annotated videos with features that `val_csv_path`
does not name, `n_train` videos of every primary task that has more of them train, by NumPy's
generator with seed 0, and the rest test; all videos of the other tasks train. The draw depends on
which features are there: train and test on one folder.

Legend: W windows, F video slots (seconds), L seconds of a video, R real seconds of all windows, K
steps, T text slots.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mmpt.batch import ClipBatch, Split
from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.crosstask.files import Segment, read_segments, read_tasks, read_videos
from mmpt.errors import DataError
from mmpt.processors.aligner import video_name
from mmpt.processors.base import (
    ALIGNERS,
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    MetaProcessor,
)
from mmpt.processors.downstream import TextProcessor, VideoProcessor, keep_with_features
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

SPLIT_SEED = 0


class TaskVideo(NamedTuple):
    """A video and its task. The id comes first, as the feature reader expects."""

    video_id: str
    task: str


class Steps(NamedTuple):
    """The steps of a task, and where they are done in one video."""

    texts: Sequence[str]
    segments: list[Segment]


class StepPieces(NamedTuple):
    """`Steps`, tokenised."""

    ids: list[list[int]]  # word pieces of each step
    segments: list[Segment]


class LocalisationBatch(ClipBatch, total=False):
    """A video of CrossTask; caps and cmasks are [K, T], vfeats [W, F, 512] and vmasks [W, F]."""

    targets: torch.Tensor  # float32 [R, K]: 1 where a step is done, window after window
    task: str
    video_len: int  # L


@META_PROCESSORS.register
class CrossTaskMetaProcessor(MetaProcessor):
    """One annotated video per item: its id and task, and the task's steps with their times."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        primary = read_tasks(self.need_str("primary_path"))
        tasks = {**primary, **read_tasks(self.need_str("related_path"))}
        train, test = self._split_videos(set(primary), set(tasks))
        videos = keep_with_features(
            train if split is Split.TRAIN else test, lambda video: video[0], config, split
        )
        if not videos:
            raise DataError(
                f"{config.train_csv_path}: there must be {split.value} videos with annotations, "
                "but there are none: only primary tasks with more than `dataset.n_train` videos "
                "are tested on. Check `n_train` and the CrossTask files under `dataset`."
            )
        self.items = [(video, self._steps_of(video, tasks[video.task])) for video in videos]
        if empty := [video.video_id for video, steps in self.items if not steps.segments]:
            logger.warning("%d videos have no step annotated (first: %s)", len(empty), empty[0])

    def _split_videos(
        self, primary: set[str], tasks: set[str]
    ) -> tuple[list[TaskVideo], list[TaskVideo]]:
        """Returns the training and the test videos of `tasks`, with or without features."""
        listed, held_out = (
            read_videos(self.need_str("train_csv_path")),
            read_videos(self.need_str("val_csv_path")),
        )
        unused = {task: set(videos) for task, videos in held_out.items()}
        reader = VideoProcessor(self.config, self.split)
        n_train = self.need_int("n_train")
        train: list[TaskVideo] = []
        test: list[TaskVideo] = []
        rng = np.random.RandomState(SPLIT_SEED)
        num_without = 0
        for task, names in listed.items():
            if task not in tasks:
                continue
            usable = [name for name in names if name not in unused.get(task, ())]
            videos = [name for name in usable if self._annotation(task, name).is_file()]
            num_without += len(usable) - len(videos)
            there = [name for name in videos if reader.has(name)]
            chosen = set(videos)
            if task in primary and len(there) > n_train:
                chosen = {str(name) for name in rng.choice(there, n_train, replace=False)}
            train += [TaskVideo(name, task) for name in videos if name in chosen]
            test += [TaskVideo(name, task) for name in videos if name not in chosen]
        if num_without:
            logger.info(
                "%d listed videos have no annotation in %s; left out",
                num_without,
                self.config.annotation_path,
            )
        return train, test

    def _annotation(self, task: str, video_id: str) -> Path:
        return Path(self.need_str("annotation_path")) / f"{task}_{video_id}.csv"

    def _steps_of(self, video: TaskVideo, texts: Sequence[str]) -> Steps:
        return Steps(texts, read_segments(self._annotation(video.task, video.video_id), len(texts)))


@VIDEO_PROCESSORS.register
class CrossTaskVideoProcessor(VideoProcessor):
    """Features of a video from `<vfeat_dir>/<id>.npy`, whatever its task."""


@TEXT_PROCESSORS.register
class CrossTaskTextProcessor(TextProcessor):
    """Word pieces of every step of a task."""

    def __call__(self, key: Steps) -> StepPieces:
        """Returns the tokenised steps, with their times."""
        return StepPieces([self.encode(text) for text in key.texts], key.segments)


@ALIGNERS.register
class CrossTaskAligner(WindowAligner):
    """Windows of a video, one caption per step, and which step is done in every second of every
    window.
    """

    def __call__(
        self,
        video_key: TaskVideo,
        video_feature: np.ndarray,
        text_feature: StepPieces,
        rng: random.Random,
    ) -> LocalisationBatch:
        """Returns all of them; nothing is drawn."""
        name = video_name(video_key)
        batch, spans = self.build_item(
            video_key.video_id, video_feature, text_feature.ids, name=name
        )
        done_LK = steps_done(text_feature.segments, len(video_feature), len(text_feature.ids))
        targets_RK = np.concatenate([done_LK[start:end] for start, end in spans])
        return LocalisationBatch(
            **batch,
            targets=torch.from_numpy(targets_RK),
            task=video_key.task,
            video_len=len(video_feature),
        )


def steps_done(segments: list[Segment], num_seconds: int, num_steps: int) -> np.ndarray:
    """Returns float32 [num_seconds, num_steps]: 1 in every second that a segment of the step
    touches, else 0.
    """
    done_LK = np.zeros((num_seconds, num_steps), dtype=np.float32)
    for segment in segments:
        done_LK[math.floor(segment.start_s) : math.ceil(segment.end_s), segment.step - 1] = 1
    return done_LK
