"""Memory of a process in bytes: how much it may hold, how much it does.

On a GPU it is what torch takes of the card, on a CPU the process's resident memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

SHARE_OF_GPU = 0.92
"""Default share of the card's memory that others leave; the rest is for CUDA itself and the allocator's gaps."""
SHARE_OF_CPU = 0.8
"""Default share of the memory that the system has to spare, for all processes of a run together."""


def memory_limit(memory: float | None, device: torch.device, processes: int = 1) -> int:
    """Return the bytes that this process may hold, those it holds already among them.

    Args:
        memory: bytes (int), or a share of the device (float); None: the default share.
        device: on which it computes; every GPU has one process.
        processes: of the run, which share a CPU's memory.
    """
    if isinstance(memory, int):
        return memory
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(memory * total if memory else SHARE_OF_GPU * (free + torch.cuda.memory_reserved(device)))
    return memory_in_use(device) + int((memory or SHARE_OF_CPU) * _spare_cpu_memory() / processes)


def memory_in_use(device: torch.device) -> int:
    """Return the bytes of this process: of torch's tensors on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    resident = _field(Path("/proc/self/status"), "VmRSS")
    return resident or 0


def _spare_cpu_memory() -> int:
    """What the system can give without swapping, within the limit of the container, if any."""
    spare = _field(Path("/proc/meminfo"), "MemAvailable")
    if spare is None:  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no such limit
        return spare
    return min(spare, max(limit - used, 0))


def _field(path: Path, name: str) -> int | None:
    """Return the bytes of a line `name: .. kB`, or None where there is no such file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def written(num_bytes: float) -> str:
    """Return an amount for people: `23.1 GB`, `64 MB`."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
