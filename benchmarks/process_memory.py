"""Memory and CPU time of a process, as Linux tells them, and processes whose memory is nobody
else's.

- own memory: anonymous memory and page tables, each page that processes share counted in equal
  parts;
- batches: what lies in memory shared between a loader worker and the process that it works for;
- mapped pages: page cache that the process has mapped; the kernel takes it back when memory is
  short.
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
    """Bytes of a process."""

    own: int
    batches: int
    mapped: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Ask the kernel."""
        sums, status = _fields(f"/proc/{pid}/smaps_rollup"), _fields(f"/proc/{pid}/status")
        return cls(sums["Pss_Anon"] + status["VmPTE"], sums["Pss_Shmem"], sums["Pss_File"])


def apart(function: Callable[..., Result], *args: object) -> Result:
    """Return `function(*args)` of a new process."""
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=_fork_workers
    ) as pool:
        return pool.submit(function, *args).result()


def _fork_workers() -> None:
    """Let this process start its own as a training run does, not as it was started itself."""
    multiprocessing.set_start_method("fork", force=True)


def peak_memory() -> int:
    """Return the most anonymous and mapped memory of this process since its start or `reset_peak`.

    (What getrusage says is inherited from the parent.)
    """
    return _fields("/proc/self/status")["VmHWM"]


def reset_peak() -> None:
    """Begin to measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _fields(path: str) -> dict[str, int]:
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def cpu_s(pid: int) -> float:
    """Returns the seconds of CPU that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
