"""Checks of the machine, with limits and programs that the tests set."""

import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from mmpt.cli import doctor_machine as machine
from mmpt.cli.finding import Finding

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def only(check: Callable[[], Iterable[Finding]]) -> Finding:
    (finding,) = check()
    return finding


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/", {"cpu.max": "max 100000", "memory.max": "max"}, (None, None)),
        ("0::/", {"cpu.max": "150000 100000", "memory.max": "4096"}, (1.5, 4096)),
        # The group is from the host, and is not visible in the container.
        ("0::/../x", {"memory.max": "4096"}, (None, 4096)),
        # The limit of a parent applies, too.
        (
            "0::/job/step",
            {
                "job/memory.max": "10",
                "job/step/memory.max": "20",
                "job/step/cpu.max": "200000 100000",
            },
            (2, 10),
        ),
        # Version 1 has a tree for each controller.
        (
            "4:memory:/job\n3:cpu,cpuacct:/job",
            {
                "memory/job/memory.limit_in_bytes": "99",
                "cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            (0.5, 99),
        ),
    ],
)
def test_limits_of_control_groups(
    own: str,
    files: dict[str, str],
    limits: tuple[float | None, int | None],
    tmp_path: Path,
) -> None:
    write(tmp_path / "root", files)
    (tmp_path / "own").write_text(own + "\n")
    assert machine.cgroup_limits(tmp_path / "root", tmp_path / "own") == limits


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert machine.cgroup_limits(tmp_path, tmp_path / "none") == (None, None)


def test_fewer_cores_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(machine, "cgroup_limits", lambda: (2.5, None))
    finding = only(machine.check_cores)
    assert (finding.state, finding.found[:7]) == ("warning", "8 of 16")
    assert "OMP_NUM_THREADS=2" in finding.remedy
    monkeypatch.setattr(machine, "cgroup_limits", lambda: (None, None))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert only(machine.check_cores) == Finding("cores", "ok", "16 of 16")


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cgroup_limits", lambda: (None, 10**9))
    finding = only(machine.check_memory)
    assert finding.state == "warning"
    assert "may use 0.9 GiB" in finding.found


@pytest.mark.parametrize(("free", "state"), [(9, "warning"), (11, "ok")])
def test_disk_space(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(100 * GIB, 0, free * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = only(machine.check_disk)
    assert finding.state == state
    assert f"{free}.0 GiB free" in finding.found
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert only(machine.check_disk).state == "missing"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
def test_shared_memory_of_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = Usage(64 * 2**20, 0, 64 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    finding = only(machine.check_shared_memory)
    assert finding.state == "warning"
    assert "--shm-size" in finding.remedy
    (finding,) = machine.check_shared_memory(Path("/nowhere"))
    assert finding.state == "missing"


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    finding = only(machine.check_open_files)
    assert (finding.state, finding.found) == ("warning", "256")
    assert finding.remedy == "ulimit -n 1024 (at most 512)"
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2048, 4096))
    assert only(machine.check_open_files).state == "ok"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert list(machine.check_open_files()) == []  # Windows


@pytest.mark.parametrize(
    ("programs", "state"),
    [([], "optional"), (["sbatch"], "warning"), (machine.SLURM, "ok")],
)
def test_slurm(
    programs: list[str], state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in programs:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert only(machine.check_slurm).state == state


@pytest.mark.parametrize(
    ("platform", "has_fork", "state"),
    [("linux", True, "ok"), ("darwin", True, "warning"), ("win32", False, "missing")],
)
def test_systems(
    platform: str, has_fork: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    if not has_fork:
        monkeypatch.delattr(os, "fork")
    assert only(machine.check_system).state == state


def test_ffmpeg_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert only(machine.check_ffmpeg).state == "optional"
