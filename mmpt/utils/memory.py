"""Memory of a process in bytes: how much it may hold, how much it does.

On a GPU it is what torch takes of the card, on a CPU the process's resident memory.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from mmpt.utils.log import get_logger

logger = get_logger(__name__)
SHARE_OF_GPU = 0.92
"""Default share of the card's memory that others leave; the rest is for CUDA itself and the allocator's gaps."""
SHARE_OF_CPU = 0.8
"""Default share of the memory that the system has to spare, for all processes of a run together."""
GROUP_OF, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where a process finds its control group, and the limit of a container or of a cluster's job."""


def memory_limit(memory: float | None, device: torch.device, processes: int = 1) -> int:
    """Return the bytes that this process may hold, those it holds already among them: at most what it can have.

    Args:
        memory: bytes (int), or a share of the device (float); None: the default share. A warning tells of too many.
        device: on which it computes; every GPU has one process.
        processes: of the run, which share a CPU's memory.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        most = free + torch.cuda.memory_reserved(device)
        asked = SHARE_OF_GPU * most if memory is None else memory * total
        gives = "GPU can give this process"
    else:
        held, spare = memory_in_use(device), _spare_cpu_memory() / processes
        most = held + int(spare)
        asked = held + (SHARE_OF_CPU if memory is None else memory) * spare
        gives = "machine can give " + (f"each of {processes} processes" if processes > 1 else "this process")
    if isinstance(memory, int):  # bytes, not a share
        asked = memory
    if asked > most:
        logger.warning("`memory` is %s, but this %s %s; the plan uses that", written(asked), gives, written(most))
    return int(min(asked, most))


def memory_in_use(device: torch.device) -> int:
    """Return the bytes of this process: of torch's tensors on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    resident = _field(Path("/proc/self/status"), "VmRSS")
    return resident or 0


def memory_gb() -> float:
    """Memory of this process in GB: what it holds of the GPU if it uses one, else its peak resident memory.

    (The GPU's peak is of no use to fairseq's log: fairseq resets it just before it asks.)
    """
    if torch.cuda.is_available() and torch.cuda.memory_reserved():
        return torch.cuda.memory_reserved() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def _spare_cpu_memory() -> int:
    """What the system can give without swapping, within the limits of containers and jobs, if any."""
    spare = _field(Path("/proc/meminfo"), "MemAvailable")
    if spare is None:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return min([spare, *_left_in_groups()])


def _left_in_groups() -> Iterator[int]:
    """Yield what each control group around this process leaves of its limit, of version 1 or 2."""
    for line in _lines(GROUP_OF):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, names, prefix = GROUPS, ("memory.max", "memory.current"), ""
        elif "memory" in controllers.split(","):
            root, names, prefix = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_"
        else:
            continue
        own = root / path.lstrip("/")  # not there in a container that sees its group as the root
        for group in (own, *own.parents):
            if group.is_relative_to(root):
                yield from _left_in_group(group, *names, (f"{prefix}active_file", f"{prefix}inactive_file"))


def _left_in_group(group: Path, limit: str, used: str, cached: tuple[str, str]) -> Iterator[int]:
    """Yield what is left of the group's limit, if it has one; files that are cached give way when memory is short."""
    try:
        left = int((group / limit).read_text()) - int((group / used).read_text())
    except (OSError, ValueError):
        return
    held = dict(line.split() for line in _lines(group / "memory.stat"))
    yield max(left + sum(int(held.get(name, 0)) for name in cached), 0)


def _field(path: Path, name: str) -> int | None:
    """Return the bytes of a line `name: .. kB`, or None where there is no such line or file."""
    return next((int(line.split()[1]) * 1024 for line in _lines(path) if line.startswith(f"{name}:")), None)


def _lines(path: Path) -> list[str]:
    """Return the lines of a file of the system; none where there is no such file."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def written(num_bytes: float) -> str:
    """Return an amount for people: `23.1 GB`, `64 MB`."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
