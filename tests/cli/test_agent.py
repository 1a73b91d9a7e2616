"""The end of a job whose processes were asked to stop, on one machine and on several."""

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore, TCPStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmpt.cli import agent
from tests.support.forked import run_forked


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("code", "num_starts", "expected"),
    [(75, 1, 128 + signal.SIGTERM), (130, 1, 128 + signal.SIGINT), (1, 3, 1)],
)
def test_a_process_that_was_asked_to_stop_is_not_restarted(
    tmp_path: Path, code: int, num_starts: int, expected: int
) -> None:
    path = tmp_path / "starts"
    program = f"import os; open({str(path)!r}, 'a').write('x'); os._exit({code})"
    done = run_forked("tests.support.child:launch", ["fork", 1, program, 2])
    assert done.returncode == expected
    assert path.read_text() == "x" * num_starts


def group(store: HashStore | TCPStore, size: int = 2) -> Any:
    return SimpleNamespace(store=store, group_world_size=size)


def failed(exit_code: int) -> RunResult:
    failure = ProcessFailure(0, 1, exit_code, "")
    return RunResult(WorkerState.FAILED, failures={0: failure})


def test_a_launcher_reads_the_reason_for_a_failure_from_the_store() -> None:
    store = HashStore()
    assert agent.signal_of_job(failed(1), group(store), reason_s=0.1) is None
    assert agent.signal_of_job(failed(130), group(store)) == signal.SIGINT
    assert agent.signal_of_job(failed(1), group(store)) == signal.SIGINT


def test_a_job_ends_only_if_all_launchers_have_seen_the_end() -> None:
    """A launcher that does not answer has ended earlier. Then the other ones continue."""
    assert agent.wait_for_launchers(group(HashStore(), size=1))
    assert not agent.wait_for_launchers(group(HashStore()), timeout_s=0.3)
    store, met = HashStore(), []
    other = threading.Thread(
        target=lambda: met.append(agent.wait_for_launchers(group(store), timeout_s=30))
    )
    other.start()
    assert agent.wait_for_launchers(group(store), timeout_s=30)
    other.join()
    assert met == [True]


def test_a_job_ends_if_the_first_launcher_has_closed_the_store() -> None:
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
    del server
    assert agent.wait_for_launchers(group(client))
