"""The phases of a training run: its processes record them, and interruptions wait for them.

Rank 0 appends a line to a file when a phase begins and after each update. The line has the time,
the name of the phase, and the number of updates so far. A killed process leaves the file as it is.
"""

import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any

import fairseq_cli.train
from fairseq import checkpoint_utils

from mmpt.tasks.fairseqmmtask import FairseqMMTask
from mmpt.tasks.retritask import RetriTask

TRAINING = "training"
REFRESH = "refresh"
VALIDATION = "validation"
CHECKPOINT = "checkpoint"
PHASES = (TRAINING, REFRESH, VALIDATION, CHECKPOINT)
POLL_S = 0.001


@dataclass(frozen=True)
class Line:
    """A line of the file."""

    time_s: float
    phase: str
    num_updates: int


class Recorder:
    """Writes the phases of this process to a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._phase = "start"
        self._num_updates = 0

    def begin(self, phase: str, num_updates: int | None = None) -> None:
        """Writes a line."""
        self._phase = phase
        if num_updates is not None:
            self._num_updates = num_updates
        line = f"{time.monotonic()} {phase} {self._num_updates}\n"
        os.write(self._file, line.encode())

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Records a phase that begins with the block. The phase before it continues afterwards."""
        before = self._phase
        self.begin(phase)
        yield
        self.begin(before)

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Replaces a function of a module or class by one that records each call as a phase."""
        original = getattr(owner, name)

        @wraps(original)  # keeps the attributes, in which fairseq stores the best loss
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.during(phase):
                return original(*args, **kwargs)

        setattr(owner, name, wrapped)


def record_phases(path: Path, rank: int) -> None:
    """Makes this training process record its phases, if it is rank 0."""
    if rank > 0:
        return
    recorder = Recorder(path)
    recorder.wrap(RetriTask, "refresh", REFRESH)
    recorder.wrap(fairseq_cli.train, "validate", VALIDATION)
    recorder.wrap(checkpoint_utils, "save_checkpoint", CHECKPOINT)
    train_step, optimizer_step = FairseqMMTask.train_step, FairseqMMTask.optimizer_step

    def begin_update(task: FairseqMMTask, *args: Any, **kwargs: Any) -> Any:
        recorder.begin(TRAINING, kwargs["update_num"])
        return train_step(task, *args, **kwargs)

    def end_update(
        task: FairseqMMTask, *args: Any, update_num: int, **kwargs: Any
    ) -> None:
        optimizer_step(task, *args, update_num=update_num, **kwargs)
        recorder.begin(TRAINING, update_num + 1)

    FairseqMMTask.train_step = begin_update  # type: ignore[method-assign]
    FairseqMMTask.optimizer_step = end_update  # type: ignore[method-assign]


def read_lines(path: Path) -> list[Line]:
    """Returns the lines of a file, which may not exist yet."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text().splitlines():
        time_s, phase, num_updates = text.split()
        found.append(Line(float(time_s), phase, int(num_updates)))
    return found


def done_updates(path: Path) -> int:
    """Returns the number of the last update of a run, saved or not."""
    lines = read_lines(path)
    return lines[-1].num_updates if lines else 0


@dataclass(frozen=True)
class Moment:
    """A moment of a training run: some time after the beginning of a phase.

    Args:
        phase: name of the phase.
        number: number of the line of this phase in the file, from 0.
        delay_s: seconds after the line was written.
    """

    phase: str
    number: int
    delay_s: float

    def wait(self, path: Path, is_over: Callable[[], bool]) -> None:
        """Waits for the moment, or for the end of the training run.

        Args:
            path: the file with the phases of the run.
            is_over: returns whether the run has ended.
        """
        while not is_over():
            lines = [line for line in read_lines(path) if line.phase == self.phase]
            if len(lines) > self.number:
                time.sleep(self.delay_s)
                return
            time.sleep(POLL_S)


def choose_moment(
    lines: Sequence[Line], number: int, phases: Collection[str], rng: random.Random
) -> Moment:
    """Returns a random moment of a training run.

    Args:
        lines: the phases of an uninterrupted run with the same settings.
        number: number of the trial. It decides the phase, so that phases take turns.
        phases: phases that may be interrupted. Phases that the run does not have are left out.
        rng: chooses the moment in the phase.
    """
    names = {line.phase for line in lines}
    wanted = [phase for phase in PHASES if phase in phases and phase in names]
    phase = wanted[number % len(wanted)]
    # The interruption may come late, so the phase after the moment must be one of `phases`, too.
    of_phase = [pair for pair in pairwise(lines) if pair[0].phase == phase]
    numbers = [at for at, (_, end) in enumerate(of_phase) if end.phase in phases]
    at = rng.choice(numbers)
    begin, end = of_phase[at]
    return Moment(phase, at, rng.random() * (end.time_s - begin.time_s))
