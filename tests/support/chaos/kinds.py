"""Kinds of interruptions. Each ends a training run and returns the exit codes of its processes."""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.support.chaos.phases import PHASES, TRAINING
from tests.support.interruptions import Training

SMALL_FILE = 1 << 17
"""Largest size of a file in bytes after the disk is full."""
HOUR_S = 3600.0
TIMEOUT_S = 1.5
"""Time limit for a process that does not answer."""


@dataclass(frozen=True)
class Kind:
    """A kind of interruption."""

    name: str
    interrupt: Callable[[Training, random.Random], list[int]]
    """Called at a random moment of a training run. Returns the exit codes."""
    phases: tuple[str, ...] = PHASES
    """Phases in which training runs are interrupted."""
    overrides: tuple[str, ...] = ()
    """Settings of training runs that are interrupted."""
    prepare: Callable[[Training], None] = lambda training: None
    """Called before the first start."""


def send(number: signal.Signals, training: Training, rng: random.Random) -> list[int]:
    """Sends a signal to all processes and their loader workers."""
    training.signal(number)
    return training.wait()


def lose_rank(training: Training, rng: random.Random) -> list[int]:
    """Kills one process of a run."""
    training.signal(signal.SIGKILL, [rng.randrange(training.size)])
    return training.wait()


def ask_rank(training: Training, rng: random.Random) -> list[int]:
    """Asks one process of a run to stop."""
    os.kill(training.pids[rng.randrange(training.size)], signal.SIGUSR1)
    return training.wait()


def hang(training: Training, rng: random.Random) -> list[int]:
    """Stops one process of a run, so that the others wait for it."""
    rank = rng.randrange(training.size)
    training.signal(signal.SIGSTOP, [rank])
    return training.wait(grace_s=1.0)


def kill_worker(training: Training, rng: random.Random) -> list[int]:
    """Kills a loader worker, or waits for the end of the run if there is none."""
    while not training.has_ended():
        try:
            workers = psutil.Process(training.pids[0]).children()
        except psutil.NoSuchProcess:
            break
        if workers:
            rng.choice(workers).kill()
            break
        time.sleep(0.005)
    return training.wait()


def fill_disk(training: Training, rng: random.Random) -> list[int]:
    """Prevents files from growing beyond `SMALL_FILE`, as if the disk was full."""
    for pid in training.pids:
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
        except ProcessLookupError:
            continue
    return training.wait()


def damage(training: Training, rng: random.Random) -> list[int]:
    """Kills a run, and then cuts its last checkpoint short or writes zeros into it."""
    training.signal(signal.SIGKILL)
    codes = training.wait()
    path = training.save_dir / "checkpoint_last.pt"
    if path.exists():
        size = path.stat().st_size
        with open(path, "r+b") as file:
            if rng.random() < 0.5:
                file.truncate(rng.choice([0, rng.randrange(size)]))
            else:
                file.seek(rng.randrange(size // 2))
                file.write(bytes(size // 4))
    return codes


def move(training: Training, rng: random.Random) -> list[int]:
    """Kills a run, and continues it in a copy of its folder."""
    training.signal(signal.SIGKILL)
    codes = training.wait()
    moved = training.save_dir.with_name(f"{training.save_dir.name}-moved")
    if training.save_dir.exists():
        shutil.copytree(training.save_dir, moved)
        shutil.rmtree(training.save_dir)
    training.save_dir = moved
    return codes


def forbid_writing(training: Training, rng: random.Random) -> list[int]:
    """Makes the folders of a run read-only until it ends."""
    folders = [training.save_dir, training.save_dir / "retri"]
    folders = [folder for folder in folders if folder.exists()]
    for folder in folders:
        set_read_only(folder, is_read_only=True)
    try:
        return training.wait()
    finally:
        for folder in folders:
            set_read_only(folder, is_read_only=False)


def set_read_only(folder: Path, *, is_read_only: bool) -> None:
    """Allows or forbids to make, rename and remove files in a folder. Root needs `chattr`."""
    if os.geteuid() > 0:
        folder.chmod(0o555 if is_read_only else 0o755)
        return
    flag = "+i" if is_read_only else "-i"
    subprocess.run(["chattr", flag, str(folder)], check=True, capture_output=True)


def jump_file(training: Training) -> Path:
    """Returns the file with the seconds by which the clock of a training run is wrong."""
    return training.save_dir.with_suffix(".jump")


def prepare_clock(training: Training) -> None:
    """Makes the clock of a training run depend on a file."""
    in_child, file, clock = training.in_child, jump_file(training), time.time

    def wrong_time() -> float:
        try:
            return clock() + float(file.read_text() or 0)
        except FileNotFoundError:
            return clock()

    def with_wrong_clock(rank: int) -> None:
        time.time = wrong_time
        in_child(rank)

    training.in_child = with_wrong_clock


def jump_clock(training: Training, rng: random.Random) -> list[int]:
    """Makes the clock jump by an hour, and asks the run to stop some time later."""
    jump_file(training).write_text(str(rng.choice([-HOUR_S, HOUR_S])))
    time.sleep(rng.uniform(0, 0.5))
    training.signal(signal.SIGTERM)
    return training.wait()


SIGKILL = Kind("SIGKILL", partial(send, signal.SIGKILL))
SIGKILL_SAVED = Kind("SIGKILL, saved after each update", partial(send, signal.SIGKILL))
SIGTERM = Kind("SIGTERM", partial(send, signal.SIGTERM))
SIGINT = Kind("Ctrl-C", partial(send, signal.SIGINT))
RANK_ASKED = Kind("a signal to one rank", ask_rank)
RANK_LOST = Kind("one rank lost", lose_rank)
# This is limited to training, because in a refresh the other ranks would wait for hours.
RANK_HUNG = Kind(
    "one rank hangs",
    hang,
    phases=(TRAINING,),
    overrides=(f"fairseq.distributed_training.timeout_minutes={TIMEOUT_S / 60}",),
)
WORKER_KILLED = Kind("a loader worker killed", kill_worker)
DISK_FULL = Kind("disk full", fill_disk)
DAMAGED = Kind("last checkpoint damaged", damage)
MOVED = Kind("folder moved", move)
READ_ONLY = Kind("folder becomes read-only", forbid_writing)
CLOCK = Kind(
    "the clock jumps by an hour, then SIGTERM", jump_clock, prepare=prepare_clock
)
