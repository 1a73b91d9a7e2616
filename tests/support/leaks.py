"""Samples of the memory and the handles of a process and its loader workers, to find leaks."""

import gc
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

MB = 1_000_000
WAIT_S = 20.0
"""Time limit for threads and workers to end after an epoch."""

Values = dict[str, float]


def usage(process: psutil.Process, memory: str) -> Values:
    """Returns memory and handles of a process.

    Args:
        memory: "rss" or "uss". USS leaves out the pages that a worker shares with its parent.
    """
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    return {
        "MB": getattr(process.memory_full_info(), memory) / MB,
        "open files": process.num_fds(),
        "memory maps": maps.count("\n"),
        "threads": process.num_threads(),
    }


def growth(values: Sequence[float]) -> float:
    """Returns the total rise of a line that is fitted to the second half of the values."""
    late = values[len(values) // 2 :]
    if len(late) < 2:
        return 0.0
    slope, _ = np.polyfit(range(len(late)), late, 1)
    return float(slope * (len(late) - 1))


def rise(values: Sequence[float]) -> float:
    """Returns the minimum of the last quarter of values minus the minimum of the quarter before.

    Batches in transit open files for a moment. The minimum leaves most of these files out.
    """
    quarter = max(1, len(values) // 4)
    before = values[-2 * quarter : -quarter]
    return float(min(values[-quarter:]) - min(before, default=0))


class Watch:
    """Samples of this process and its loader workers."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.shared_before = set(shared_memory())
        self.num_threads = self.process.num_threads()
        # Processes that are not loader workers, such as a fork server of other tests.
        self.pids_before = {child.pid for child in self.process.children()}
        self.main: list[Values] = []
        self.rest: list[Values] = []  # the main process after each epoch
        self.workers: list[list[Values]] = []  # the mean worker, for each epoch

    def children(self) -> list[psutil.Process]:
        """Returns the processes that this one has started since the watch began."""
        found = self.process.children()
        return [child for child in found if child.pid not in self.pids_before]

    def begin_epoch(self) -> None:
        """Begins an epoch, which has new workers."""
        self.workers.append([])

    def sample(self) -> None:
        """Adds a sample of this process and, if there are workers, of the mean worker."""
        self.main.append(usage(self.process, "rss"))
        found = []
        for child in self.children():
            with suppress(psutil.NoSuchProcess, OSError):  # it has just ended
                found.append(usage(child, "uss"))
        if found:
            mean = {}
            for name in found[0]:
                mean[name] = float(np.mean([one[name] for one in found]))
            self.workers[-1].append(mean)

    def end_epoch(self) -> None:
        """Adds a sample after the threads and workers of an epoch have ended."""
        gc.collect()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and (
            self.children() or self.process.num_threads() > self.num_threads
        ):
            time.sleep(0.05)
        gc.collect()
        # Libraries start some threads once.
        self.num_threads = self.process.num_threads()
        self.rest.append(usage(self.process, "rss"))
        self.main.append(self.rest[-1])

    def checks(self) -> Values:
        """Returns how much each quantity has grown, and what is left at the end."""
        earlier = self.rest[(len(self.rest) - 1) // 2]
        found = {"main process, MB": growth(column(self.main, "MB"))}
        for name in ("open files", "memory maps", "threads"):
            found[name] = self.rest[-1][name] - earlier[name]
        epochs = [epoch for epoch in self.workers if epoch]
        if epochs:
            found["worker, MB"] = max(growth(column(epoch, "MB")) for epoch in epochs)
            for name in ("open files", "memory maps"):
                rises = [rise(column(epoch, name)) for epoch in epochs]
                found[f"{name}, worker"] = max(rises)
        found["processes"] = len(self.children())
        found["`/dev/shm`"] = len(set(shared_memory()) - self.shared_before)
        return found


def column(samples: Sequence[Values], name: str) -> list[float]:
    """Returns one quantity of all samples."""
    return [sample[name] for sample in samples]


def shared_memory() -> list[str]:
    """Returns the entries of /dev/shm that torch has made in this process or in ended ones."""
    names = [name for name in os.listdir("/dev/shm") if name.startswith("torch_")]
    found = []
    for name in names:
        pid = int(name.split("_")[1])
        if pid == os.getpid() or not psutil.pid_exists(pid):
            found.append(name)
    return found
