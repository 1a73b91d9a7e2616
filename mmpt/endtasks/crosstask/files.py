"""CrossTask's files: lists of videos, tasks with their steps, and the times of steps in a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from mmpt.errors import DataError
from mmpt.utils.io import read_text
from mmpt.utils.log import get_logger
from mmpt.utils.validation import NotBlank, Row, Seconds, read_table

logger = get_logger(__name__)

LINES_PER_TASK = 6
"""Id, title, url, number of steps, the steps between commas, a blank line."""


class Segment(NamedTuple):
    """A stretch of a video in which a step is done."""

    step: int
    """From 1."""
    start_s: float
    end_s: float


class _Video(Row):
    task: Annotated[str, Field(pattern=r"^\d+$")]
    video: NotBlank


class _Step(Row):
    step: Annotated[int, Field(ge=1)]
    start: Seconds
    end: Seconds

    @model_validator(mode="after")
    def _check_times(self) -> _Step:
        if self.start > self.end:
            raise ValueError("have start <= end")
        return self


def read_videos(path: str) -> dict[str, list[str]]:
    """Returns the video ids of every task, both in the order of the file.

    A video that is listed twice in a task counts once.

    Raises:
        DataError: missing, or rows of anything but task, video and url.
    """
    videos: dict[str, dict[str, None]] = {}
    rows = read_table(path, _Video, header=("task", "video", "url"))
    for row in rows:
        videos.setdefault(row.task, {})[row.video] = None
    if repeated := len(rows) - sum(map(len, videos.values())):
        logger.warning("%s: %d rows repeat a video of their task; they count once", path, repeated)
    return {task: list(names) for task, names in videos.items()}


def read_tasks(path: str) -> dict[str, list[str]]:
    """Returns the steps of every task, in the order of the file.

    Raises:
        DataError: missing or empty, not in blocks of six lines, another number of steps than it
            says, or a task twice.
    """
    lines = read_text(path).rstrip().splitlines()
    tasks: dict[str, list[str]] = {}
    for first in range(0, len(lines), LINES_PER_TASK):
        block = [line.strip() for line in lines[first : first + LINES_PER_TASK]]
        task, steps = _read_task(path, first + 1, block)
        if task in tasks:
            raise DataError(
                f"{path}, line {first + 1}: task {task} must come once, but comes twice. Remove "
                "one."
            )
        tasks[task] = steps
    if not tasks:
        raise DataError(f"{path}: must hold a task at least, but holds none. Download it again.")
    return tasks


def _read_task(path: str, line: int, block: list[str]) -> tuple[str, list[str]]:
    task, *_ = block
    if (
        len(block) < LINES_PER_TASK - 1
        or not task.isdecimal()
        or not block[3].isdecimal()
        or any(block[5:])
    ):
        raise DataError(
            f"{path}, line {line}: a task must be six lines: id, title, url, number of steps, the "
            f"steps between commas, a blank line; but here is {' / '.join(block)!r:.120}. Download "
            "CrossTask's file again."
        )
    steps = [step.strip() for step in block[4].split(",")]
    if len(steps) != int(block[3]) or not all(steps):
        raise DataError(
            f"{path}, line {line + 4}: task {task} must have {block[3]} steps with a text each, "
            f"but these are {block[4]!r:.120}."
        )
    return task, steps


def read_segments(path: Path, num_steps: int) -> list[Segment]:
    """Returns the segments of a video in the order of the file. An empty file has none.

    Raises:
        DataError: missing, rows of anything but step,start,end, a step beyond the task's, or bad
            times.
    """
    if path.is_file() and not path.read_bytes().strip():
        return []
    rows = read_table(path, _Step, header=("step", "start", "end"))
    for row in rows:
        if row.step > num_steps:
            raise DataError(
                f"{path}, line {row.line}: the step must be 1 to {num_steps}, as the task has so "
                f"many, but is {row.step}. Download CrossTask's file again."
            )
    return [Segment(row.step, row.start, row.end) for row in rows]
