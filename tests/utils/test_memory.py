"""What a process may hold: shares, amounts that the machine does not have, and a container's limit."""

import logging
from pathlib import Path

import pytest
import torch

from mmpt.utils import memory
from mmpt.utils.memory import memory_in_use, memory_limit, written

MB = 1_000_000
CPU = torch.device("cpu")


def test_shares_are_of_the_spare_memory_and_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_spare_cpu_memory", lambda: 800 * MB)
    monkeypatch.setattr(memory, "memory_in_use", lambda device: 100 * MB)
    assert memory_limit(5 * MB, CPU, 4) == 5 * MB
    assert [memory_limit(share, CPU, 4) for share in (0.5, 1.0, None)] == [200 * MB, 300 * MB, 260 * MB]
    assert memory_limit(None, CPU) == 740 * MB


@pytest.mark.parametrize(("processes", "each"), [(1, "this process"), (2, "each of 2 processes")])
def test_more_than_there_is_counts_as_all_there_is(
    processes: int, each: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "_spare_cpu_memory", lambda: 800 * MB)
    monkeypatch.setattr(memory, "memory_in_use", lambda device: 100 * MB)
    most = 100 * MB + 800 * MB // processes
    with caplog.at_level(logging.WARNING):
        assert memory_limit(most, CPU, processes) == most
        assert caplog.messages == []
        assert memory_limit(10**12, CPU, processes) == most
    said = f"`memory` is 1,000.0 GB, but this machine can give {each} {most // MB} MB; the plan uses that"
    assert caplog.messages == [said]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_more_than_a_gpu_has_counts_as_all_it_has(caplog: pytest.LogCaptureFixture) -> None:
    limit = memory_limit(10**15, torch.device("cuda"))
    assert limit <= torch.cuda.mem_get_info()[1]
    assert f"but this GPU can give this process {written(limit)}" in caplog.text


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of this process, in a folder; its own group is /job/step."""
    (tmp_path / "own").write_text("12:cpu,cpuacct:/\n5:memory:/job/step\n0::/job/step\n")
    monkeypatch.setattr(memory, "GROUP_OF", tmp_path / "own")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    return tmp_path


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="control groups are Linux's")
def test_a_container_has_what_its_limit_leaves(groups: Path) -> None:
    """It sees its own group as the root."""
    machine = memory._spare_cpu_memory()
    stat = f"anon {10 * MB}\nfile {60 * MB}\nactive_file {40 * MB}\ninactive_file {5 * MB}"
    write_group(groups, max=f"{90 * MB}", current=f"{70 * MB}", stat=stat)
    assert memory._spare_cpu_memory() == (90 - 70 + 40 + 5) * MB  # files that were read make room
    write_group(groups, stat="anon 5")  # as sandboxes write it
    assert memory._spare_cpu_memory() == (90 - 70) * MB
    write_group(groups, max="max")
    assert memory._spare_cpu_memory() == pytest.approx(machine, rel=0.2)  # others of this machine take and give


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="control groups are Linux's")
@pytest.mark.parametrize("limited", ["job/step", "job"])
def test_a_job_of_a_cluster_has_what_its_limit_leaves(groups: Path, limited: str) -> None:
    """The limit is that of the step, or of the job that the step is in."""
    write_group(groups / "job" / "step", max="max", current=f"{3 * MB}")
    write_group(groups / limited, max=f"{9 * MB}", current=f"{5 * MB}")
    assert memory._spare_cpu_memory() == (9 - 5) * MB


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="control groups are Linux's")
@pytest.mark.parametrize("limited", ["job/step", "job", "."])
def test_groups_of_version_1_count_too(groups: Path, limited: str) -> None:
    stat = f"active_file 0\ntotal_active_file {2 * MB}\ntotal_inactive_file {1 * MB}"
    folder = groups / "memory" / limited
    write_group(folder, limit_in_bytes=f"{9 * MB}", usage_in_bytes=f"{5 * MB}", stat=stat)
    assert memory._spare_cpu_memory() == (9 - 5 + 3) * MB
    write_group(folder, usage_in_bytes=f"{15 * MB}")
    assert memory._spare_cpu_memory() == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_a_process_holds_what_it_has_allocated() -> None:
    before = memory_in_use(CPU)
    held = torch.ones(25 * MB)
    assert memory_in_use(CPU) - before == pytest.approx(held.nbytes, rel=0.1)


def test_amounts_are_written_for_people() -> None:
    assert [written(number) for number in (23.14e9, 64 << 20, 5e5)] == ["23.1 GB", "67 MB", "0 MB"]
