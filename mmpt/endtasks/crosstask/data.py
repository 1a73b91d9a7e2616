"""CrossTask: the readers of its files, and the windows of a video with the steps of its task.

Files: `videos.csv` (task,video,url), tasks in blocks of six lines (id, title, url, number of steps,
the steps between commas, a blank line), and one `<task>_<video>.csv` per annotated video (step from
1,start,end in seconds).

Training and test videos are drawn as in the release, from the annotated videos that `val_csv_path`
does not name. If a primary task has more than `n_train` videos with features, NumPy's generator
with seed 0 draws `n_train` of them for training, and the others are for testing. All videos of
other tasks are for training. The draw depends on the features that are there, so train and test on
one folder.

Legend: W windows, F video slots (feature rows), N rows of a video, R real rows of all windows, K
steps, T text slots.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator

from mmpt.batch import Split
from mmpt.config.schema import Count, DatasetConfig, InputPath
from mmpt.errors import DataError
from mmpt.processors import base
from mmpt.processors.aligner import video_name
from mmpt.processors.downstream import TextProcessor, VideoProcessor, keep_with_features
from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import WindowAligner
from mmpt.utils.io import read_text, split_lines
from mmpt.utils.validation import NotBlank, Row, Seconds, read_table

SPLIT_SEED = 0
LINES_PER_TASK = 6
"""Id, title, url, number of steps, the steps between commas, a blank line."""


class TaskVideo(NamedTuple):
    """A video and its task. The id comes first, as the feature reader expects."""

    video_id: str
    task: str


class _Video(Row):
    task: Annotated[str, Field(pattern=r"^\d+$")]
    video: NotBlank


class Segment(Row):
    """A stretch of a video in which a step is done."""

    step: Annotated[int, Field(ge=1)]
    """Number of the step in its task, from 1."""
    start: Seconds
    end: Seconds

    @model_validator(mode="after")
    def _check_times(self) -> Segment:
        if self.start > self.end:
            raise ValueError("have start <= end")
        return self


class Steps(NamedTuple):
    """The steps of a task, and the segments of one video in which they are done."""

    texts: Sequence[Any]
    """The words of each step, or its word-piece ids."""
    segments: list[Segment]


def read_videos(path: str) -> dict[str, list[str]]:
    """Returns the video ids of every task, both in the order of the file.

    A video that is listed twice in a task counts once.

    Raises:
        DataError: missing, or rows of anything but task, video and url.
    """
    videos: dict[str, list[str]] = {}
    for row in read_table(path, _Video, header=("task", "video", "url")):
        listed = videos.setdefault(row.task, [])
        if row.video not in listed:
            listed.append(row.video)
    return videos


def read_tasks(path: str) -> dict[str, list[str]]:
    """Returns the steps of every task, in the order of the file.

    Raises:
        DataError: missing or empty, not in blocks of six lines, another number of steps than it
            says, or a task twice.
    """
    text = read_text(path).rstrip()
    lines = [line.strip() for line in split_lines(text)] or [""]
    tasks: dict[str, list[str]] = {}
    for first in range(0, len(lines), LINES_PER_TASK):
        block = lines[first : first + LINES_PER_TASK]
        # The last block has no blank line, and a damaged one may have fewer lines.
        num_absent = LINES_PER_TASK - len(block)
        padded = block + [""] * num_absent
        task, _, _, count, listed, blank = padded
        steps = [step.strip() for step in listed.split(",")]
        has_all_steps = count == str(len(steps)) and all(steps)
        well_formed = task.isdecimal() and has_all_steps and not blank
        if not well_formed or task in tasks:
            found = " / ".join(block)
            raise DataError(
                f"{path}, line {first + 1}: a task must be six lines: id (once in the file), "
                "title, url, number of steps, as many steps between commas, a blank line; but here "
                f"is {found!r:.120}. Download CrossTask's file again."
            )
        tasks[task] = steps
    return tasks


def read_segments(path: Path, num_steps: int) -> list[Segment]:
    """Returns the segments of a video in the order of the file. An empty file has none.

    Raises:
        DataError: missing, rows of anything but step,start,end, a step beyond the task's, or bad
            times.
    """
    if path.is_file() and not read_text(path).strip():
        return []
    segments = read_table(path, Segment, header=("step", "start", "end"))
    for row in segments:
        if row.step > num_steps:
            raise DataError(
                f"{path}, line {row.line}: the step must be 1 to {num_steps}, as the task has so "
                f"many, but is {row.step}. Download CrossTask's file again."
            )
    return segments


@base.META_PROCESSORS.register
class CrossTaskMetaProcessor(base.MetaProcessor):
    """The annotated videos. An item is a video's id and task, and the steps with their times."""

    class Config(DatasetConfig):
        """The keys of the class."""

        train_csv_path: InputPath = None
        """`videos.csv`."""
        val_csv_path: InputPath = None
        """`videos_val.csv`: videos that are used neither for training nor for testing."""
        primary_path: InputPath = None
        """`tasks_primary.txt`."""
        related_path: InputPath = None
        """`tasks_related.txt`."""
        annotation_path: InputPath = None
        """Folder with the annotation CSVs."""
        n_train: Count | None = None
        """Number of training videos per primary task."""

    config: Config

    def __init__(self, config: Config, split: Split):
        super().__init__(config, split)
        self.annotations = Path(self.need_str("annotation_path"))
        primary = read_tasks(self.need_str("primary_path"))
        tasks = primary | read_tasks(self.need_str("related_path"))
        train, test = self._split_videos(set(primary), set(tasks))
        videos = train if split is Split.TRAIN else test
        videos = keep_with_features(videos, lambda video: video.video_id, config, split)
        if not videos:
            raise DataError(
                f"{config.train_csv_path}: there must be {split.value} videos with annotations, "
                "but there are none: only primary tasks with more than `dataset.n_train` videos "
                "are tested on. Check `n_train` and the CrossTask files under `dataset`."
            )
        self.items = []
        for video in videos:
            texts = tasks[video.task]
            segments = read_segments(self._annotation(video), len(texts))
            self.items.append((video, Steps(texts, segments)))

    def _split_videos(
        self, primary: set[str], tasks: set[str]
    ) -> tuple[list[TaskVideo], list[TaskVideo]]:
        """Returns the training and the test videos of `tasks`, with or without features."""
        held_out = read_videos(self.need_str("val_csv_path"))
        n_train = self.need_int("n_train")
        reader = VideoProcessor(self.config, self.split)
        rng = np.random.RandomState(SPLIT_SEED)
        train: list[TaskVideo] = []
        test: list[TaskVideo] = []
        for task, names in read_videos(self.need_str("train_csv_path")).items():
            if task not in tasks:
                continue
            videos = []
            for name in names:
                video = TaskVideo(name, task)
                is_held_out = name in held_out.get(task, ())
                if self._annotation(video).is_file() and not is_held_out:
                    videos.append(video)
            # All videos are for training, unless there are enough to draw from.
            chosen = [video.video_id for video in videos]
            with_features = [video.video_id for video in videos if reader.has(video)]
            if task in primary and len(with_features) > n_train:
                chosen = rng.choice(with_features, n_train, replace=False).tolist()
            for video in videos:
                listed = train if video.video_id in chosen else test
                listed.append(video)
        return train, test

    def _annotation(self, video: TaskVideo) -> Path:
        return self.annotations / f"{video.task}_{video.video_id}.csv"


@base.VIDEO_PROCESSORS.register
class CrossTaskVideoProcessor(VideoProcessor):
    """A reader of features from `<vfeat_dir>/<id>.npy`, whatever a video's task."""


@base.TEXT_PROCESSORS.register
class CrossTaskTextProcessor(TextProcessor):
    """A reader of the steps of a task as word-piece ids."""

    def __call__(self, key: Steps) -> Steps:
        """Returns the tokenised steps, with their times."""
        ids = [self.encode(text) for text in key.texts]
        return Steps(ids, key.segments)


@base.ALIGNERS.register
class CrossTaskAligner(WindowAligner):
    """An aligner that cuts a video into windows, with a caption per step and the steps of every
    feature row.
    """

    def __call__(
        self,
        video_key: Any,
        video_feature: np.ndarray,
        text_feature: Steps,
        rng: random.Random,
    ) -> Any:
        """Returns caps and cmasks [K, T], vfeats [W, F, width], vmasks [W, F], task, video_len N,
        and targets float32 [R, K]: 1 where a step is done, window after window. It draws nothing.
        """
        texts, segments = text_feature
        num_rows = len(video_feature)
        name = video_name(video_key)
        batch, spans = self.build_item(
            video_key.video_id, video_feature, texts, name=name
        )
        done_NK = steps_done(segments, num_rows, len(texts), self.config.feature_fps)
        done_of_windows = [done_NK[start:end] for start, end in spans]
        targets_RK = np.concatenate(done_of_windows)
        return {
            **batch,
            "targets": torch.from_numpy(targets_RK),
            "task": video_key.task,
            "video_len": num_rows,
        }


def steps_done(
    segments: list[Segment], num_rows: int, num_steps: int, fps: float = 1
) -> np.ndarray:
    """Returns float32 [num_rows, num_steps]: 1 in every row that a segment of the step touches,
    else 0.

    Args:
        fps: rows per second.
    """
    done_NK = np.zeros((num_rows, num_steps), dtype=np.float32)
    for segment in segments:
        first, end = rows_between(segment.start, segment.end, fps)
        done_NK[first:end, segment.step - 1] = 1
    return done_NK
