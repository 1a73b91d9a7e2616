"""A trial: a training that is interrupted once, continued to its end, and compared."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.chaos.kinds import Kind
from tests.support.chaos.laboratory import Laboratory, Setting, phases_file, remove
from tests.support.chaos.phases import (
    TRAINING,
    choose_moment,
    done_updates,
    read_lines,
)
from tests.support.interruptions import differences


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
    """Differences from the training that was not interrupted."""
    lost_updates: int
    """Number of updates that were repeated."""
    recovery_s: float
    """Seconds from the second start to its first update, or to its end."""


def run_trial(
    laboratory: Laboratory,
    row: str,
    number: int,
    kind: Kind,
    setting: Setting,
    rng: random.Random,
) -> Outcome:
    """Runs a trial. If the training ends before it is interrupted, another moment is tried."""
    whole = laboratory.whole(setting)
    codes = [0]
    while not any(codes):
        save_dir = laboratory.folder / f"{row}-{number}"
        remove(save_dir)
        training = laboratory.training(setting, save_dir, *kind.overrides)
        kind.prepare(training)
        file = phases_file(save_dir)
        moment = choose_moment(whole.lines, number, kind.phases, rng)
        training.start()
        moment.wait(file, training.has_ended)
        before = read_lines(file)
        codes = kind.interrupt(training, rng)
    done, begin = done_updates(file), time.monotonic()
    lost = max(done - saved_updates(training.save_dir), 0)
    # The training records in the same file, even if its folder was moved.
    training.start()
    recovery_s = wait_for_update(file, begin, training.has_ended)
    last = training.wait()
    different = [f"exit codes {last}", training.log.read_text()[-900:]]
    different = different if any(last) else []
    different += differences(whole.save_dir, training.save_dir)
    phase = before[-1].phase if before else ""
    if not different:
        remove(save_dir)
        remove(training.save_dir)
    return Outcome(
        row,
        number,
        kind.name,
        str(setting),
        setting.size,
        phase,
        codes,
        different,
        lost,
        recovery_s,
    )


def saved_updates(save_dir: Path) -> int:
    """Returns the number of updates after which a run was saved."""
    for name in ("checkpoint_last.pt", "checkpoint_previous.pt"):
        try:
            state = load_checkpoint(save_dir / name)
        except ValueError:
            continue
        return int(state["optimizer_history"][-1]["num_updates"])
    return 0


def wait_for_update(file: Path, begin: float, is_over: Callable[[], bool]) -> float:
    """Returns the seconds since `begin` until an update was made, or the training has ended.

    Args:
        file: the phases of the training.
        begin: `time.monotonic()` at the start.
        is_over: returns whether the training has ended.
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
