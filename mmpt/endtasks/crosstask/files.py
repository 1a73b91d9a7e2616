"""CrossTask's files: lists of videos, tasks with their steps, and the times of steps in a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from mmpt.endtasks.tables import Row, read_table, read_text
from mmpt.errors import DataError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

LINES_PER_TASK = 6
"""Id, title, url, number of steps, the steps between commas, a blank line."""


class Segment(NamedTuple):
    """A stretch of a video in which a step is done."""

    step: int
    """From 1."""
    start_s: float
    end_s: float


def read_videos(path: str) -> dict[str, list[str]]:
    """Returns the video ids of every task, both in the order of the file; a video twice in a task
    counts once.

    Raises:
        DataError: missing, or rows of anything but task, video and url.
    """
    videos: dict[str, dict[str, None]] = {}
    rows = read_table(path, ("task", "video"), header=("task", "video", "url"))
    for row in rows:
        if not row.values["task"].isdecimal():
            raise _wrong(path, row, "the task must be a number", row.values["task"])
        videos.setdefault(row.values["task"], {})[row.values["video"]] = None
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
                f"{path}, line {first + 1}: task {task} must come once, but comes twice. Remove one."
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
            f"{path}, line {line}: a task must be six lines: id, title, url, number of steps, the steps between "
            f"commas, a blank line; but here is {' / '.join(block)!r:.120}. Download CrossTask's file again."
        )
    steps = [step.strip() for step in block[4].split(",")]
    if len(steps) != int(block[3]) or not all(steps):
        raise DataError(
            f"{path}, line {line + 4}: task {task} must have {block[3]} steps with a text each, but these are "
            f"{block[4]!r:.120}."
        )
    return task, steps


def read_segments(path: Path, num_steps: int) -> list[Segment]:
    """Returns the segments of a video in the order of the file; an empty file has none.

    Raises:
        DataError: missing, rows of anything but step,start,end, a step beyond the task's, or bad
            times.
    """
    if path.is_file() and not path.read_bytes().strip():
        return []
    rows = read_table(path, ("step", "start", "end"), header=("step", "start", "end"))
    return [_read_segment(path, row, num_steps) for row in rows]


def _read_segment(path: Path, row: Row, num_steps: int) -> Segment:
    step = row.values["step"]
    if not step.isdecimal() or not 1 <= int(step) <= num_steps:
        raise _wrong(path, row, f"the step must be 1 to {num_steps}, as the task has so many", step)
    try:
        start_s, end_s = float(row.values["start"]), float(row.values["end"])
    except ValueError:
        start_s, end_s = 1.0, 0.0
    if not 0 <= start_s <= end_s < math.inf:
        found = f"{row.values['start']},{row.values['end']}"
        raise _wrong(path, row, "times must be seconds with 0 <= start <= end", found)
    return Segment(int(step), start_s, end_s)


def _wrong(path: str | Path, row: Row, rule: str, found: str) -> DataError:
    return DataError(
        f"{path}, line {row.line}: {rule}, but here is {found!r:.60}. This must be CrossTask's file; download it again."
    )
