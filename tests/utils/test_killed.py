"""Recognition of killed loader workers and of a full /dev/shm, and the messages about them."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmpt.utils.command import run_command
from mmpt.utils.killed import worker_failure
from mmpt.utils.workers import run_tasks
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        # Messages of torch and NCCL.
        (
            "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device"
            " (28)",
            [
                "/dev/shm",
                " free now",
                "--shm-size",
                "num_workers=0",
                "num_video_per_batch",
            ],
        ),
        (
            "unable to write to file </torch_18692_1954506624>",
            ["/dev/shm", "--shm-size"],
        ),
        (
            "NCCL error: Error while creating shared memory segment /dev/shm/nccl-ai2Lcq (size "
            "9637888), error: No space left on device (28)",
            ["/dev/shm", "--shm-size"],
        ),
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory.",
            ["pid 7", "SIGBUS", "/dev/shm", "--shm-size"],
        ),
        (
            "DataLoader worker (pid 42) is killed by signal: Killed. ",
            ["pid 42", "SIGKILL", "memory was used up", "dmesg", "num_workers"],
        ),
        (
            "DataLoader worker (pid(s) 7, 8) exited unexpectedly",
            ["pid 7, 8", "unexpectedly"],
        ),
    ],
)
def test_torch_messages_get_a_cause_and_a_remedy(text: str, parts: list[str]) -> None:
    failure = worker_failure(RuntimeError(text))
    for part in parts:
        assert part in str(failure)
    outer = RuntimeError("the training failed")
    outer.__cause__ = RuntimeError(text)
    assert str(worker_failure(outer)) == str(failure)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "out of resource: shared memory, Required: 147456, Hardware limit: 101376"
        ),
        RuntimeError(
            "unable to open shared memory object </torch_1_2>: Too many open files (24)"
        ),
        OSError(errno.ENOSPC, "No space left on device", "/data/a.npy"),
        ValueError("boom"),
    ],
)
def test_other_errors_are_not_explained(error: Exception) -> None:
    assert worker_failure(error) is None


class Ending(Dataset[int]):
    """A data set that kills the worker that reads from it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_the_signal_is_found_if_the_loader_runs_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fairseq runs the loader in a thread, where torch does not know the signal."""
    ask = _MultiProcessingDataLoaderIter._try_get_data
    monkeypatch.setattr(ask, "__defaults__", (0.1,))  # seconds
    caught: list[BaseException] = []

    def read() -> None:
        try:
            list(DataLoader(Ending(), num_workers=1))
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join(60)
    assert "signal" not in str(caught[0])
    assert "SIGKILL" in str(worker_failure(caught[0]))


def test_a_killed_worker_gives_one_message_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        run_command(
            lambda: list(run_tasks(Ending().__getitem__, [1, 2], 2)) and None,
            interrupt_message="",
        )
        == 2
    )
    message = capsys.readouterr().err
    assert message.startswith("error: a loader worker (pid ")
    for part in ("SIGKILL", "`--workers`", "Finished tasks are kept."):
        assert part in message


READ = """
import os, sys, torch
from torch.utils.data import DataLoader, Dataset
from mmpt.datasets import collate
from mmpt.utils.command import run_command

class Items(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if sys.argv[1] == "large":
            return {"x": torch.zeros(1_000_000)}
        fill()
        return {"x": index}

def fill():
    file = os.open("/dev/shm/other", os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError:
        pass

def work():
    if sys.argv[1] == "before":
        fill()
    list(DataLoader(Items(), collate_fn=collate, num_workers=1))

sys.exit(run_command(work, interrupt_message=""))
"""


def may_mount() -> bool:
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.spawn
@pytest.mark.skipif(not may_mount(), reason="only root may make a small /dev/shm")
@pytest.mark.parametrize("what", ["large", "small", "before"])
def test_a_full_dev_shm_is_reported(what: str) -> None:
    """It is full because of a large batch, before a small batch, or before the loader starts."""
    code = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        code,
        "sh",
        sys.executable,
        "-c",
        READ,
        what,
    ]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        "error: /dev/shm, through which processes pass batches, was full"
    )
    assert "holds 1 MiB, of which " in error
    assert "--shm-size" in error
