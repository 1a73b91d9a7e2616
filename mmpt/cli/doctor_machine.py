"""Checks of `mmpt doctor`: the operating system, cores, memory, disk space, limits and programs."""

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from mmpt.cli.finding import Finding
from mmpt.cli.main import num_cores

GIB = 2**30
MIN_MEMORY = 4 * GIB
"""Float32 weights, gradients and Adam state of 177 million parameters take 2.8 GB."""
MIN_DISK = 10 * GIB
"""Three checkpoints of 177 million parameters with their Adam state take 6.4 GB."""
MIN_SHARED_MEMORY = GIB
MIN_FILES = 1024
SHARED_MEMORY = Path("/dev/shm")
SLURM = ("sbatch", "squeue", "scancel", "scontrol")


def check_system() -> Iterable[Finding]:
    """Yields the operating system."""
    found = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if sys.platform == "linux":
        yield Finding("system", "ok", found)
    elif hasattr(os, "fork"):
        remedy = "Train on Linux if it fails. Preparation and inference run here"
        yield Finding("system", "warning", f"{found}; tests run on Linux only", remedy)
    else:
        remedy = "Train on Linux or in WSL 2. Preparation and inference run here"
        yield Finding("system", "missing", f"{found}; training needs Linux", remedy)


def check_cores() -> Iterable[Finding]:
    """Yields the number of cores that this process may use."""
    num_all = os.cpu_count() or 1
    num_usable = num_cores()
    share, _ = cgroup_limits()
    found = f"{num_usable} of {num_all}"
    if share is None or share >= num_usable:
        yield Finding("cores", "ok", found)
        return
    threads = max(int(share), 1)
    yield Finding(
        "cores",
        "warning",
        f"{found}, but the container or job is limited to {share:g} cores of CPU time",
        f"export OMP_NUM_THREADS={threads}, as torch starts a thread per core",
    )


def check_memory() -> Iterable[Finding]:
    """Yields the memory that this process may use."""
    import psutil

    memory = psutil.virtual_memory()
    _, limit = cgroup_limits()
    usable = memory.total
    found = f"{_gib(memory.total)}, of which {_gib(memory.available)} are free"
    if limit is not None and limit < memory.total:
        usable = limit
        found += f"; the container or job may use {_gib(limit)}"
    if usable < MIN_MEMORY:
        remedy = f"{_gib(MIN_MEMORY)} are needed to train BERT; the demo needs less"
        yield Finding("memory", "warning", found, remedy)
    else:
        yield Finding("memory", "ok", found)


def cgroup_limits(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[float | None, int | None]:
    """Returns how many cores and how many bytes the control groups of this process allow.

    A container or a batch system sets these limits. None: there is no limit. The limits of all
    groups from the process's own up to the root apply.

    Args:
        root: the folder of all groups.
        own: the file with the groups of this process. A line is `number:controllers:path`.
    """
    cores: list[float] = []
    memory: list[int] = []
    with suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            # Version 2 has a single line, without controllers.
            base = root / controllers
            group = base / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(base):
                    cores += _core_limits(folder)
                    memory += _memory_limits(folder)
    return min(cores, default=None), min(memory, default=None)


def _core_limits(group: Path) -> Iterator[float]:
    """Yields the number of cores that a group allows: its CPU time in a period, per period."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)  # "max" raises a ValueError
    with suppress(OSError, ValueError):
        quota = (group / "cpu.cfs_quota_us").read_text()
        period = (group / "cpu.cfs_period_us").read_text()
        if int(quota) > 0:  # -1: no limit
            yield int(quota) / int(period)


def _memory_limits(group: Path) -> Iterator[int]:
    """Yields the bytes that a group allows. Version 1 has a huge number for no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            yield int((group / name).read_text())


def check_disk() -> Iterable[Finding]:
    """Yields the disk space in the current folder, where checkpoints are written."""
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    found = f"{_gib(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        remedy = "Change to a folder that you own, or set the permissions"
        yield Finding("disk", "missing", f"{folder} cannot be written", remedy)
    elif free < MIN_DISK:
        remedy = "Make room for checkpoints, or run in a folder of another disk"
        yield Finding("disk", "warning", found, remedy)
    else:
        yield Finding("disk", "ok", found)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Iterable[Finding]:
    """Yields the size of the file system through which loader workers pass batches."""
    if sys.platform != "linux":
        return
    name = str(folder)
    if not os.access(folder, os.W_OK):
        remedy = "Mount it (Docker: --shm-size=8g or --ipc=host)"
        yield Finding(name, "missing", "does not exist or cannot be written", remedy)
        return
    usage = shutil.disk_usage(folder)
    found = f"{_gib(usage.total)}, of which {_gib(usage.free)} are free"
    if usage.free < MIN_SHARED_MEMORY:
        remedy = "Enlarge it (Docker: --shm-size=8g), or use num_workers=0"
        yield Finding(name, "warning", found, remedy)
    else:
        yield Finding(name, "ok", found)


def check_open_files() -> Iterable[Finding]:
    """Yields the number of files that a process may open at the same time."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    found = "no limit" if soft == unlimited else f"{soft}"
    if soft != unlimited and soft < MIN_FILES:
        raised = "" if hard == unlimited else f" (at most {hard})"
        remedy = f"ulimit -n {MIN_FILES}{raised}"
        yield Finding("open files", "warning", found, remedy)
    else:
        yield Finding("open files", "ok", found)


def check_slurm() -> Iterable[Finding]:
    """Looks for the commands of SLURM."""
    absent = [program for program in SLURM if shutil.which(program) is None]
    if not absent:
        yield Finding("SLURM", "ok", shutil.which(SLURM[0]) or "")
    elif len(absent) == len(SLURM):
        found = "not here; needed for --jobtype slurm"
        yield Finding("SLURM", "optional", found)
    else:
        found = f"no {', '.join(absent)}; needed for --jobtype slurm"
        remedy = "Load SLURM's module, or run on a login node"
        yield Finding("SLURM", "warning", found, remedy)


def check_ffmpeg() -> Iterable[Finding]:
    """Looks for the program FFmpeg, which users may have for their own work."""
    path = shutil.which("ffmpeg")
    found = path or "not here; not needed, as PyAV contains FFmpeg"
    yield Finding("ffmpeg", "ok" if path else "optional", found)


def _gib(size: int) -> str:
    """Returns a number of bytes as text."""
    return f"{size / GIB:.1f} GiB"
