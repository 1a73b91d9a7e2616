"""run_all with small children: exit codes, the end of the others, signals, and nobody left
behind.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmpt.cli import processes
from mmpt.cli.processes import free_port, main, rank_env, rank_flags, run_all

ROOT = Path(__file__).resolve().parents[2]


def child(code):
    return [sys.executable, "-c", code]


SLEEP = child("import time; time.sleep(600)")


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


def test_all_well():
    assert run_all([child("pass"), child("pass")]) == 0


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
    ],
)
def test_exit_code_of_one(code, expected):
    assert run_all([child(code)]) == expected


def test_the_first_failure_counts_and_ends_the_others():
    late = child("import time, sys; time.sleep(600); sys.exit(5)")
    begin = time.monotonic()
    assert run_all([SLEEP, child("import sys; sys.exit(7)"), late]) == 7
    assert time.monotonic() - begin < 300


def test_who_ignores_sigterm_is_killed(tmp_path):
    deaf = f"open(r'{tmp_path}/deaf', 'x').close()"
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, "
        f"signal.SIG_IGN); {deaf}; time.sleep(600)"
    )
    failing = (
        f"import os, time\nwhile not os.path.exists(r'{tmp_path}/deaf'): "
        "time.sleep(0.02)\nraise SystemExit(4)"
    )
    begin = time.monotonic()
    assert run_all([child(stubborn), child(failing)], grace_s=0.3) == 4
    assert time.monotonic() - begin < 300


def test_one_done_early_is_no_failure():
    assert run_all([child("pass"), child("import time; time.sleep(0.3)")]) == 0


def test_extra_environment():
    codes = [
        child(f"import os, sys; sys.exit(os.environ['RANK'] != '{rank}')") for rank in range(2)
    ]
    assert run_all(codes, [{"RANK": "0"}, {"RANK": "1"}]) == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_children_and_grandchildren(tmp_path, signum):
    family = (
        "import os, subprocess, sys, time; from pathlib import Path; "
        "helper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"Path(r'{tmp_path}', str(os.getpid())).write_text(str(helper.pid)); time.sleep(600)"
    )
    command = [sys.executable, "-m", "mmpt.cli.processes", "2", sys.executable, "-c", family]
    starter = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: len([file for file in tmp_path.iterdir() if file.read_text()]) == 2)
    pids = [int(pid) for file in tmp_path.iterdir() for pid in (file.name, file.read_text())]
    assert all(is_alive(pid) for pid in pids)
    starter.send_signal(signum)
    _, errors = starter.communicate(timeout=120)
    assert starter.returncode == 128 + signum
    assert errors == ""  # no tracebacks
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_children_end_when_we_are_killed_outright(tmp_path):
    code = (
        f"import os, time; from pathlib import Path; Path(r'{tmp_path}', "
        "str(os.getpid())).touch(); time.sleep(600)"
    )
    command = [sys.executable, "-m", "mmpt.cli.processes", "2", sys.executable, "-c", code]
    starter = subprocess.Popen(command, cwd=ROOT)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [int(file.name) for file in tmp_path.iterdir()]
    assert all(is_alive(pid) for pid in pids)
    starter.kill()
    starter.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_flags_of_ranks():
    common = [
        "--distributed-no-spawn",
        "--distributed-init-method",
        "tcp://127.0.0.1:99",
        "--distributed-rank",
        "1",
    ]
    assert rank_flags(["fairseq-train"], 1, 99) == ["fairseq-train", *common, "--device-id", "1"]
    assert rank_flags(["fairseq-train", "--cpu"], 1, 99) == ["fairseq-train", "--cpu", *common]


def test_environment_of_ranks(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert rank_env(["x"], 1, 2) == {"RANK": "1"}
    assert rank_env(["x", "--cpu"], 0, 2)["OMP_NUM_THREADS"] == "3"
    assert rank_env(["x", "--cpu"], 0, 8)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert "OMP_NUM_THREADS" not in rank_env(["x", "--cpu"], 0, 2)


def test_main_gives_every_copy_its_rank(monkeypatch):
    seen = []
    monkeypatch.setattr(processes, "run_all", lambda commands, env: seen.extend(commands) or 6)
    assert main(["3", "fairseq-train", "a.yaml", "--lr", "1e-05"]) == 6
    assert [command[command.index("--distributed-rank") + 1] for command in seen] == ["0", "1", "2"]
    assert all(command[:4] == ["fairseq-train", "a.yaml", "--lr", "1e-05"] for command in seen)
    assert len({command[command.index("--distributed-init-method") + 1] for command in seen}) == 1


def test_main_without_a_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["2"])
    assert caught.value.code == 2


def test_two_processes_meet():
    """The address and environment that we give let two gloo processes add 1 and 2."""
    pytest.importorskip("torch.distributed")
    code = (
        "import sys, torch, torch.distributed as dist; rank, address = int(sys.argv[1]), "
        "sys.argv[2]; dist.init_process_group('gloo', init_method=address, rank=rank, "
        "world_size=2); x = torch.tensor([rank + 1.0]); dist.all_reduce(x); dist.barrier(); "
        "dist.destroy_process_group(); sys.exit(int(x.item() != 3.0))"
    )
    address = f"tcp://127.0.0.1:{free_port()}"
    commands = [[*child(code), str(rank), address] for rank in range(2)]
    assert run_all(commands, [rank_env(["--cpu"], rank, 2) for rank in range(2)]) == 0
