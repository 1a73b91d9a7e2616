"""`run` with small processes: exit codes, signals, and the end of all processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from torch.distributed.elastic.multiprocessing import SignalException

from mmpt.cli import processes
from tests.support.forked import Forked
from tests.support.paths import ROOT

pytestmark = pytest.mark.spawn

WAYS = ("fork", "execute")
SLEEP = "import time; time.sleep(600)"


def start(code: str, way: str = "fork", size: int = 2) -> Forked:
    """Starts a launcher of processes that run `code`."""
    return Forked("tests.support.child:launch", [way, size, code, 0])


def finish(launcher: Forked) -> tuple[int | None, str]:
    """Waits for the end of a launcher, and returns its exit code and its messages."""
    _, errors = launcher.communicate(timeout=120)
    return launcher.returncode, errors


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(condition, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def in_rank_1(code: str, otherwise: str = "pass") -> str:
    """Returns code that differs for rank 1 and the other ranks."""
    return f"import os\nif os.environ['RANK'] == '1':\n    {code}\nelse:\n    {otherwise}\n"


@pytest.mark.parametrize(
    ("way", "code", "expected"),
    [
        ("fork", "pass", 0),
        ("fork", "import time; time.sleep(0.5)", 0),  # the other process ends earlier
        ("fork", "import sys; sys.exit(3)", 3),
        ("fork", "raise ValueError", 1),
        ("execute", "raise ValueError", 1),
    ],
)
def test_the_exit_code_of_one_process_is_returned(way, code, expected):
    assert finish(start(in_rank_1(code), way))[0] == expected


@pytest.mark.parametrize("way", WAYS)
def test_the_exit_code_of_a_user_mistake_has_priority(tmp_path, way):
    """Rank 0 fails first, like a process that has lost its peer, and rank 1 a moment later."""
    ready = f"Path(r'{tmp_path / 'ready'}')"
    imports = "import sys, time; from pathlib import Path"
    mistake = f"{imports}; {ready}.touch(); sys.exit(2)"
    failure = (
        f"{imports}\n    while not {ready}.exists(): time.sleep(0.01)\n    sys.exit(1)"
    )
    assert finish(start(in_rank_1(mistake, failure), way))[0] == 2


@pytest.mark.parametrize(
    ("way", "signum", "parts"),
    [
        ("fork", signal.SIGKILL, ["was killed by SIGKILL", "memory was used up"]),
        ("execute", signal.SIGKILL, ["was killed by SIGKILL", "dmesg"]),
        ("fork", signal.SIGBUS, ["was killed by SIGBUS", "/dev/shm"]),
        ("fork", signal.SIGSEGV, ["crashed (SIGSEGV)"]),
        ("fork", signal.SIGTERM, ["was terminated by SIGTERM"]),
        ("fork", signal.SIGUSR1, ["was terminated by SIGUSR1"]),
    ],
)
def test_a_rank_ended_by_a_signal_is_reported_with_the_cause(way, signum, parts):
    kill = f"import os; os.kill(os.getpid(), {int(signum)})"
    code, error = finish(start(in_rank_1(kill, SLEEP), way))
    assert code == 128 + signum
    *_, line = error.splitlines()  # a crash also prints where it was
    assert re.match(r"error: rank 1 of 2 \(pid \d+\) ", line)
    assert all(part in line for part in parts)
    assert len(re.findall("^error: ", error, re.MULTILINE)) == 1
    assert "Traceback" not in error


FAMILY = (
    "import os, subprocess, sys; from pathlib import Path; "
    f"helper = subprocess.Popen([sys.executable, '-c', '{SLEEP}']); "
    "Path(r'{folder}', str(os.getpid())).write_text(str(helper.pid)); " + SLEEP
)


def family(folder: Path) -> list[int]:
    """Waits for two processes of FAMILY, and returns their ids and the ids of their children."""
    wait_until(
        lambda: len([file for file in folder.iterdir() if file.read_text()]) == 2
    )
    return [
        int(pid) for file in folder.iterdir() for pid in (file.name, file.read_text())
    ]


@pytest.mark.parametrize(
    ("way", "signum"),
    [
        ("fork", signal.SIGINT),
        ("fork", signal.SIGTERM),
        ("fork", signal.SIGHUP),
        ("execute", signal.SIGUSR2),
    ],
)
def test_a_signal_ends_children_and_grandchildren(tmp_path, way, signum):
    launcher = start(FAMILY.format(folder=tmp_path), way)
    pids = family(tmp_path)
    assert all(is_alive(pid) for pid in pids)
    launcher.send_signal(signum)
    code, errors = finish(launcher)
    assert code == 128 + signum
    assert "launcher" not in errors  # no tracebacks of it
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_a_process_that_ends_leaves_no_helpers(tmp_path):
    code = FAMILY.format(folder=tmp_path).replace("time.sleep(600)", "time.sleep(1)")
    launcher = start(code)
    pids = family(tmp_path)
    finish(launcher)
    assert not any(is_alive(pid) for pid in pids)


def test_a_signal_to_all_processes_at_once_is_not_a_failure(tmp_path):
    """Batch systems send signals in this way."""
    launcher = start(FAMILY.format(folder=tmp_path))
    for pid in (launcher.pid, *family(tmp_path)):
        os.kill(pid, signal.SIGTERM)
    assert finish(launcher) == (128 + signal.SIGTERM, "")


class Finalised:
    """An object whose finaliser runs while a signal arrives."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_job_even_if_python_drops_its_exception():
    def run() -> None:
        with processes._raise_on_signals():
            Finalised()  # Python drops the exception of the handler here
            time.sleep(30)

    with pytest.raises(SignalException) as caught:
        run()
    assert caught.value.sigval == signal.SIGTERM
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_further_signals_do_not_interrupt_saving(tmp_path):
    """SLURM may send several signals before it ends a job."""
    save = f"time.sleep(1.5), Path(r'{tmp_path}', str(os.getpid()), 'saved').touch(), sys.exit(75)"
    code = (
        "import os, signal, sys, time; from pathlib import Path; "
        f"signal.signal(signal.SIGTERM, lambda *_: ({save})); "
        f"Path(r'{tmp_path}', str(os.getpid())).mkdir(); time.sleep(600)"
    )
    launcher = start(code)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    for signum in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        launcher.send_signal(signum)
        time.sleep(0.2)
    assert finish(launcher) == (128 + signal.SIGTERM, "")
    assert len(list(tmp_path.glob("*/saved"))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("way", WAYS)
def test_children_end_when_the_launcher_is_killed(tmp_path, way):
    launcher = start(FAMILY.format(folder=tmp_path), way)
    family(tmp_path)
    children = [int(file.name) for file in tmp_path.iterdir()]
    assert all(is_alive(pid) for pid in children)
    launcher.kill()
    finish(launcher)
    wait_until(lambda: not any(is_alive(pid) for pid in children))
    for file in tmp_path.iterdir():  # a real loader worker ends with its parent
        psutil.Process(int(file.read_text())).kill()


def test_a_process_whose_launcher_was_killed_while_it_started_ends():
    command = [sys.executable, "-m", "mmpt.cli.processes", "tests.support.child"]
    for launcher, expected in ((os.getpid(), 0), (1 << 30, 1)):
        env = os.environ | {"MMPT_LAUNCHER_PID": str(launcher)}
        done = subprocess.run([*command, "pass"], cwd=ROOT, env=env, check=False)
        assert done.returncode == expected


def test_a_finished_process_ends_with_the_others(tmp_path):
    """While it waits for them, its handlers of signals would not end it."""
    deaf = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)"
    slow = "import time; time.sleep(1); raise SystemExit(4)"
    begin = time.monotonic()
    assert finish(start(in_rank_1(slow, deaf)))[0] == 4
    assert time.monotonic() - begin < 25  # not the 120 seconds until it is killed


def test_a_job_on_one_machine_listens_on_the_loopback_address_only(tmp_path):
    launcher = start(FAMILY.format(folder=tmp_path))
    family(tmp_path)
    processes = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children()]
    listening = [
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    launcher.send_signal(signal.SIGTERM)
    finish(launcher)
    assert set(listening) == {"127.0.0.1"}


def test_every_process_has_its_rank_and_its_own_session(tmp_path):
    code = (
        "import json, os; from pathlib import Path; "
        "names = ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR']; "
        "place = [os.environ[each] for each in names]; "
        f"Path(r'{tmp_path}', place[0]).write_text(' '.join([*place, name])); "
        "assert os.getsid(0) == os.getpid()"
    )
    for way in WAYS:
        assert finish(start(code, way, size=3)) == (0, "")
        places = [(tmp_path / str(rank)).read_text() for rank in range(3)]
        assert places == [
            f"{rank} 3 {rank} 3 127.0.0.1 mmpt child" for rank in range(3)
        ]


def test_dollar_signs_are_passed_to_a_process_unchanged():
    code = "assert '$' + '{local_rank}' == '${local_rank}' and '$' '$' == '$$'"
    assert finish(start(code, "execute", size=1)) == (0, "")


def test_no_temporary_files_are_left(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert finish(start("pass"))[0] == 0
    assert finish(start("raise ValueError"))[0] == 1
    assert not list(tmp_path.iterdir())
