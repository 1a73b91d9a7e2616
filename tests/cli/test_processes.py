"""run_all with small children: exit codes, the end of the others, signals, and no process left
over.
"""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from mmpt.cli import processes
from mmpt.cli.processes import execute, main, run_all
from tests.support.paths import ROOT


def child(code):
    return [sys.executable, "-c", code]


def run(*codes, **more):
    return run_all([partial(execute, child(code), {}) for code in codes], **more)


SLEEP = "import time; time.sleep(600)"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, timeout_s=120.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import time; time.sleep(0.3)", 0),  # the other one is done before
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
    ],
)
def test_exit_code_of_one(code, expected):
    assert run("pass", code) == expected


def kill_rank_1(signum):
    """Returns code of a rank that kills itself if it is rank 1, and aborts when rank 1 does."""
    return f"""
import os, signal, sys, time
from pathlib import Path
if sys.argv[-1] == "1":
    Path("killed").touch()
    os.kill(os.getpid(), {int(signum)})
while not Path("killed").exists():
    time.sleep(0.01)
os.abort()
"""


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("signum", "parts"),
    [
        (signal.SIGKILL, ["was killed by SIGKILL", "memory was used up", "dmesg"]),
        (signal.SIGBUS, ["was killed by SIGBUS", "/dev/shm"]),
        (signal.SIGSEGV, ["crashed (SIGSEGV)"]),
        (signal.SIGTERM, ["was ended from outside by SIGTERM"]),
    ],
)
def test_a_rank_that_a_signal_ends_is_named_with_the_cause(
    tmp_path, monkeypatch, capfd, signum, parts
):
    monkeypatch.chdir(tmp_path)
    assert main(["2", *child(kill_rank_1(signum))]) == 128 + signum
    error = capfd.readouterr().err
    assert re.match(r"error: rank 1 of 2 \(pid \d+\) ", error)
    assert all(part in error for part in parts)
    assert error.count("\n") == 1


@pytest.mark.spawn
def test_who_ignores_sigterm_is_killed(tmp_path):
    deaf = f"open(r'{tmp_path}/deaf', 'x').close()"
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {deaf}; {SLEEP}"
    failing = (
        f"import os, time\nwhile not os.path.exists(r'{tmp_path}/deaf'): "
        "time.sleep(0.02)\nraise SystemExit(4)"
    )
    begin = time.monotonic()
    assert run(stubborn, failing, grace_s=0.3) == 4
    assert time.monotonic() - begin < 300


def start(code, **more):
    """Starts two processes of `code` by the command."""
    command = [sys.executable, "-m", "mmpt.cli.processes", "2", *child(code)]
    return subprocess.Popen(command, cwd=ROOT, **more)


@pytest.mark.spawn
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_children_and_grandchildren(tmp_path, signum):
    family = (
        "import os, subprocess, sys; from pathlib import Path; "
        f"helper = subprocess.Popen([sys.executable, '-c', '{SLEEP}']); "
        f"Path(r'{tmp_path}', str(os.getpid())).write_text(str(helper.pid)); {SLEEP}"
    )
    starter = start(family, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len([file for file in tmp_path.iterdir() if file.read_text()]) == 2)
    pids = [int(pid) for file in tmp_path.iterdir() for pid in (file.name, file.read_text())]
    assert all(is_alive(pid) for pid in pids)
    starter.send_signal(signum)
    _, errors = starter.communicate(timeout=120)
    assert starter.returncode == 128 + signum
    assert errors == ""  # no tracebacks
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.spawn
def test_a_signal_to_all_processes_at_once_is_no_failure(tmp_path):
    """As batch systems send it."""
    code = f"import os; from pathlib import Path; Path(r'{tmp_path}', str(os.getpid())).touch()"
    starter = start(f"{code}; {SLEEP}", stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    for pid in (starter.pid, *(int(file.name) for file in tmp_path.iterdir())):
        os.kill(pid, signal.SIGTERM)
    _, errors = starter.communicate(timeout=120)
    assert (starter.returncode, errors) == (128 + signal.SIGTERM, "")


@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_children_end_when_we_are_killed_outright(tmp_path):
    starter = start(
        "import os; from pathlib import Path; "
        f"Path(r'{tmp_path}', str(os.getpid())).touch(); {SLEEP}"
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert all(is_alive(pid) for pid in pids)
    starter.kill()
    starter.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.parametrize(
    ("words", "set_before", "threads"),
    [
        (["fairseq-train", "--lr", "1e-05"], {}, None),
        (["fairseq-train", "--cpu"], {}, "2"),
        (["fairseq-train", "--cpu"], {"OMP_NUM_THREADS": "5"}, "5"),
    ],
)
def test_every_copy_gets_its_rank(monkeypatch, words, set_before, threads):
    seen = []
    monkeypatch.setattr(processes, "run_all", lambda *both: seen.append(both) or 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert main(["3", *words]) == 6
    ((works, _),) = seen
    address = works[0].args[0][len(words) + 2]
    for rank, work in enumerate(works):
        command, env = work.args
        flags = ["--distributed-no-spawn", "--distributed-init-method", address]
        flags += ["--distributed-rank", str(rank)]
        flags += ["--device-id", str(rank)] if threads is None else []
        assert (work.func, command) == (execute, [*words, *flags])
        assert env["RANK"] == str(rank)
        assert env.get("OMP_NUM_THREADS") == threads
