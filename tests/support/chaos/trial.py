"""A trial: a training run that is interrupted once, continued to its end, and compared."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.chaos.kinds import Kind
from tests.support.chaos.phases import (
    TRAINING,
    choose_moment,
    done_updates,
    read_lines,
)
from tests.support.chaos.training_factory import (
    Setting,
    TrainingFactory,
    phases_file,
    remove,
)
from tests.support.interruptions import Training, differences


@dataclass
class Outcome:
    """The outcome of a trial."""

    row: str
    """Name of its row in the table."""
    number: int
    """Number of the trial in its row, from 0."""
    kind: str
    setting: str
    size: int
    phase: str
    """Phase that was interrupted. It is empty if it is not known."""
    codes: list[int]
    """Exit codes of the processes that were interrupted."""
    different: list[str]
    """Differences from the uninterrupted run."""
    lost_updates: int
    """Number of updates that were repeated."""
    recovery_s: float
    """Seconds from the second start to its first update, or to its end."""
    traceback: str = ""
    """End of the log of the interrupted run, if it has a traceback."""


@dataclass
class Interrupted:
    """An interrupted training run."""

    training: Training
    file: Path
    """File with the phases of the run."""
    phase: str
    """The phase that was interrupted."""
    codes: list[int]
    traceback: str


def run_trial(
    factory: TrainingFactory,
    row: str,
    number: int,
    kind: Kind,
    setting: Setting,
    rng: random.Random,
) -> Outcome:
    """Runs a trial."""
    save_dir = factory.folder / f"{row}-{number}"
    interrupted = interrupt(factory, save_dir, number, kind, setting, rng)
    training, file = interrupted.training, interrupted.file
    done, begin = done_updates(file), time.monotonic()
    lost = max(done - saved_updates(training.save_dir), 0)
    # The run records in the same file, even if its folder was moved.
    training.start()
    recovery_s = wait_for_update(file, begin, training.has_ended)
    different = []
    codes = training.wait()
    if any(codes):
        different = [f"exit codes {codes}", training.log.read_text()[-900:]]
    different += differences(factory.whole(setting).save_dir, training.save_dir)
    if not different:
        remove(save_dir)
        remove(training.save_dir)
    return Outcome(
        row,
        number,
        kind.name,
        str(setting),
        setting.size,
        interrupted.phase,
        interrupted.codes,
        different,
        lost,
        recovery_s,
        interrupted.traceback,
    )


def interrupt(
    factory: TrainingFactory,
    save_dir: Path,
    number: int,
    kind: Kind,
    setting: Setting,
    rng: random.Random,
) -> Interrupted:
    """Starts and interrupts a run. If it ends earlier, it is repeated with another moment."""
    lines = factory.whole(setting).lines
    codes = [0]
    while not any(codes):
        remove(save_dir)
        training = factory.training(setting, save_dir, *kind.overrides)
        kind.prepare(training)
        file, log = phases_file(save_dir), training.log
        moment = choose_moment(lines, number, kind.phases, rng)
        training.start()
        moment.wait(file, training.has_ended)
        before = read_lines(file)
        codes = kind.interrupt(training, rng)
    phase = before[-1].phase if before else ""
    _, traceback, rest = log.read_text().partition("Traceback")
    return Interrupted(training, file, phase, codes, traceback + rest[-1500:])


def saved_updates(save_dir: Path) -> int:
    """Returns the number of updates in the last intact checkpoint of a run; 0 if there is none."""
    for name in ("checkpoint_last.pt", "checkpoint_previous.pt"):
        try:
            state = load_checkpoint(save_dir / name)
        except ValueError:
            continue
        return int(state["optimizer_history"][-1]["num_updates"])
    return 0


def wait_for_update(file: Path, begin: float, is_over: Callable[[], bool]) -> float:
    """Returns the seconds from `begin` until an update was made, or the run has ended.

    Args:
        file: the phases of the run.
        begin: `time.monotonic()` at the start.
        is_over: returns whether the run has ended.
    """
    while not is_over():
        updates = [
            line.num_updates
            for line in read_lines(file)
            if line.time_s > begin and line.phase == TRAINING
        ]
        if updates and updates[-1] > updates[0]:
            break
        time.sleep(0.005)
    return time.monotonic() - begin
