"""Memory and CPU time of processes, as the Linux kernel counts them.

`Memory` divides the memory of a process into three kinds:

- own: anonymous memory and page tables. A page that several processes share is counted in equal
  parts.
- batches: memory that a loader worker shares with the process that it works for.
- mapped: files of the page cache that the process has mapped. The kernel takes these pages back
  when memory is short.

`run_in_new_process` runs a function in a fresh process, so that its peak memory contains nothing of
earlier work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

Result = TypeVar("Result")
MB = 1_000_000


@dataclass(frozen=True)
class Memory:
    """The memory of a process, in bytes."""

    own: int
    batches: int
    mapped: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Returns the current memory of a process."""
        sums = _fields(f"/proc/{pid}/smaps_rollup")
        status = _fields(f"/proc/{pid}/status")
        return cls(
            own=sums["Pss_Anon"] + status["VmPTE"],
            batches=sums["Pss_Shmem"],
            mapped=sums["Pss_File"],
        )


def run_in_new_process(function: Callable[..., Result], *args: object) -> Result:
    """Returns `function(*args)`, computed in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=_fork_workers) as pool:
        future = pool.submit(function, *args)
        return future.result()


def _fork_workers() -> None:
    """Makes the new process fork its loader workers, as a training process does."""
    multiprocessing.set_start_method("fork", force=True)


def peak_memory() -> int:
    """Returns the peak resident memory of this process since its start or `reset_peak`, in bytes.

    It counts anonymous memory and mapped files. (The peak of getrusage is unsuitable, as a process
    inherits it from its parent.)
    """
    return _fields("/proc/self/status")["VmHWM"]


def reset_peak() -> None:
    """Sets the peak of `peak_memory` to the current memory."""
    Path("/proc/self/clear_refs").write_text("5")


def _fields(path: str) -> dict[str, int]:
    """Returns the fields of a file in /proc whose unit is kB, in bytes."""
    fields = {}
    lines = Path(path).read_text().splitlines()
    for line in lines:
        name, *values = line.split()
        if values and values[-1] == "kB":
            fields[name.rstrip(":")] = int(values[0]) * 1024
    return fields


def cpu_s(pid: int) -> float:
    """Returns the CPU seconds that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
