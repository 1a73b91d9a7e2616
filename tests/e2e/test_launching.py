"""Training gives the same result for all ways to start its processes.

They are started by `mmpt train` or `torchrun`, on one machine or two, and again after a failure.
"""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
import torch

from mmpt.errors import REQUEUE_CODE
from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.metrics_log import read_metrics
from tests.support.forked import Forked
from tests.support.jobs import QUICK, VIDEOCLIP, corpus_overrides, train
from tests.support.namespaces import ADDRESSES, on_host, two_hosts
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e

EPOCHS = [
    "fairseq.optimization.max_epoch=2",
    "fairseq.checkpoint.save_interval_updates=2",
]
LAUNCHER = [sys.executable, "locallaunch.py"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
NODES = ["--nnodes", "2", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400"]

Outcome = tuple[dict[str, torch.Tensor], list[tuple[str, int, float]]]
"""The weights, and split, update and loss of every row of metrics."""


def outcome(save_dir: Path) -> Outcome:
    rows = [
        (row["split"], row["update"], row["loss"]) for row in read_metrics(save_dir)
    ]
    return load_checkpoint(save_dir / "checkpoint_last.pt")["model"], rows


def assert_identical(one: Outcome, other: Outcome) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])


def job(corpus: Path, save_dir: Path) -> list[str]:
    """Returns the YAML and the overrides of the training run."""
    return [VIDEOCLIP, *corpus_overrides(corpus, save_dir), *QUICK, *EPOCHS]


def start(arguments: Sequence[str], host: str | None = None) -> Forked:
    """Starts `mmpt train` on a host, by default on this machine."""
    return Forked("mmpt.cli.main:main", ["train", *arguments], host=host)


def finish(*jobs: subprocess.Popen[str] | Forked, code: int = 0) -> list[str]:
    """Waits for the jobs to end with an exit code, and returns their logs."""
    logs = []
    try:
        for each in jobs:
            out, err = each.communicate(timeout=120)
            logs.append((out or "") + (err or ""))
    finally:
        for each in jobs:
            each.kill()
    assert [each.returncode for each in jobs] == [code] * len(jobs), "\n".join(logs)[
        -6000:
    ]
    return logs


def wait_for_checkpoint(save_dir: Path) -> None:
    """Waits until the first checkpoint has been written."""
    deadline = time.monotonic() + 100
    while not (save_dir / "checkpoint_1_2.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_a_rank(launcher: subprocess.Popen[str] | Forked, save_dir: Path) -> None:
    """Waits for the first checkpoint, and kills the last process of a launcher."""
    wait_for_checkpoint(save_dir)
    psutil.Process(launcher.pid).children()[-1].send_signal(signal.SIGKILL)


def ask_a_rank(launcher: subprocess.Popen[str] | Forked, save_dir: Path) -> None:
    """Waits for the first checkpoint, and asks the last process of a launcher to stop."""
    wait_for_checkpoint(save_dir)
    psutil.Process(launcher.pid).children()[-1].send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def two_processes(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome with two processes on one machine."""
    save_dir = tmp_path_factory.mktemp("runs") / "two"
    train(VIDEOCLIP, corpus, save_dir, *EPOCHS, jobtype="local_2")
    return outcome(save_dir)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two hosts."""
    try:
        with two_hosts() as names:
            yield names
    except OSError as err:
        pytest.skip(str(err))


def test_a_job_that_is_asked_to_stop_saves_its_state_and_continues(
    corpus: Path, tmp_path: Path, two_processes: Outcome
) -> None:
    arguments = [*job(corpus, tmp_path), "--jobtype", "local_2", "loggers=tensorboard"]
    launcher = start(arguments)
    wait_for_checkpoint(tmp_path)
    launcher.send_signal(signal.SIGUSR1)
    (log,) = finish(launcher, code=REQUEUE_CODE)
    saved = f"stopped by SIGUSR1: saved {tmp_path}/checkpoint_last.pt"
    assert log.count(saved) == 1
    assert log.count("interrupted; run the same command again to continue") == 1
    finish(start(arguments))
    assert_identical(outcome(tmp_path), two_processes)
    assert len(list((tmp_path / "tensorboard" / "train").iterdir())) == 2
    assert list(tmp_path.glob("run_*")) == []  # fairseq's own curves
    # Both starts write to one log, and neither fails.
    whole = (tmp_path / "train.log").read_text()
    assert whole.count("| num. shared model params") == 2
    assert "Traceback" not in whole


def test_a_job_stops_if_its_terminal_is_closed(corpus: Path, tmp_path: Path) -> None:
    command = [*LAUNCHER, *job(corpus, tmp_path), "--jobtype", "local_2"]
    main_end, terminal = pty.openpty()
    launcher = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    deadline = time.monotonic() + 100
    shown = b""
    while not (tmp_path / "checkpoint_1_2.pt").exists():
        assert time.monotonic() < deadline
        if select.select([main_end], [], [], 0.01)[0]:
            shown += os.read(main_end, 1 << 12)
    assert b"epoch 1: refreshed in" in shown
    assert b"epoch 1/2  " in shown
    assert b"Bert" not in shown, "the model is printed"
    os.close(main_end)
    assert launcher.wait(100) == REQUEUE_CODE
    state = load_checkpoint(tmp_path / "checkpoint_last.pt")["extra_state"]
    assert state["FairseqMMTask"]["is_due"]  # saved because of the signal


def test_a_job_is_not_restarted_if_one_rank_is_asked_to_stop(
    corpus: Path, tmp_path: Path, two_processes: Outcome
) -> None:
    arguments = [*job(corpus, tmp_path), "--jobtype", "local_2"]
    launcher = start([*arguments, "--max-restarts", "3"])
    ask_a_rank(launcher, tmp_path)
    (log,) = finish(launcher, code=REQUEUE_CODE)
    assert log.count(f": saved {tmp_path}/checkpoint_last.pt") == 1
    finish(start(arguments))
    assert_identical(outcome(tmp_path), two_processes)


def test_a_job_continues_after_the_loss_of_a_rank(
    corpus: Path, tmp_path: Path, two_processes: Outcome
) -> None:
    arguments = [*job(corpus, tmp_path), "--jobtype", "local_2", "--max-restarts", "1"]
    launcher = start(arguments)
    kill_a_rank(launcher, tmp_path)
    finish(launcher)
    assert_identical(outcome(tmp_path), two_processes)


def test_torchrun_on_two_machines_gives_the_same_result(
    corpus: Path, tmp_path: Path, two_processes: Outcome, hosts: list[str]
) -> None:
    jobs = []
    for rank, host in enumerate(hosts):
        # torchrun cannot find these out, because no host name resolves to the addresses.
        place = ["--rdzv-conf", f"is_host={rank == 0}", "--local-addr", ADDRESSES[rank]]
        options = [*NODES, "--rdzv-backend", "c10d", *place]
        options += ["-m", "mmpt.train", *job(corpus, tmp_path)]
        torchrun = subprocess.Popen(
            [*on_host(host), *TORCHRUN, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        jobs.append(torchrun)
    finish(*jobs)
    assert_identical(outcome(tmp_path), two_processes)
    assert (tmp_path / "config.yaml").is_file()


def test_two_machines_give_the_result_of_one_even_if_a_rank_is_lost(
    corpus: Path, tmp_path: Path, two_processes: Outcome, hosts: list[str]
) -> None:
    options = [*NODES, "--jobtype", "local_1", "--max-restarts", "1", "--node-rank"]
    command = [*job(corpus, tmp_path), *options]
    jobs = [start([*command, str(rank)], host) for rank, host in enumerate(hosts)]
    kill_a_rank(jobs[1], tmp_path)
    logs = finish(*jobs)
    assert_identical(outcome(tmp_path), two_processes)
    assert "epoch 1: refreshed in" in logs[0]
    assert "epoch 1" not in logs[1]  # rank 0 is on node 0


def test_two_machines_are_not_restarted_if_one_rank_is_asked_to_stop(
    corpus: Path, tmp_path: Path, hosts: list[str]
) -> None:
    options = [*NODES, "--jobtype", "local_1", "--max-restarts", "3", "--node-rank"]
    command = [*job(corpus, tmp_path), *options]
    jobs = [start([*command, str(rank)], host) for rank, host in enumerate(hosts)]
    ask_a_rank(jobs[1], tmp_path)
    logs = finish(*jobs, code=REQUEUE_CODE)
    assert "".join(logs).count(f": saved {tmp_path}/checkpoint_last.pt") == 1


def test_a_machine_may_join_and_leave(
    corpus: Path, tmp_path: Path, hosts: list[str]
) -> None:
    """No update is lost or repeated, because the processes save their state before each change."""
    options = ["--nnodes", "1:2", *NODES[2:], "--jobtype", "local_1"]
    options += ["--max-restarts", "1", "--rdzv-timeout", "40", "--node-rank"]
    endless = ["fairseq.optimization.max_epoch=10000"]
    command = [*job(corpus, tmp_path), *endless, *options]

    def wait_for(num_clips: int, after: int = 0) -> int:
        """Waits for an update with `num_clips` clips, and returns its number."""
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            rows = [row for row in read_metrics(tmp_path) if row["split"] == "train"]
            if rows and rows[-1]["update"] > after and rows[-1]["bsz"] == num_clips:
                return int(rows[-1]["update"])
            time.sleep(0.1)
        raise AssertionError(f"no update with {num_clips} clips")

    jobs = [start([*command, "0"], hosts[0])]
    try:
        alone = wait_for(64)
        jobs.append(start([*command, "1"], hosts[1]))
        together = wait_for(128, alone)
        jobs[1].send_signal(signal.SIGTERM)
        wait_for(64, together)
        jobs[0].send_signal(signal.SIGTERM)
    except AssertionError:
        for each in jobs:
            each.kill()
        raise
    finish(*jobs, code=REQUEUE_CODE)
    rows = [row for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert [row["update"] for row in rows] == list(range(1, len(rows) + 1))
    changes = [
        row["bsz"]
        for row, before in zip(rows, [{"bsz": 0}, *rows], strict=False)
        if row["bsz"] != before["bsz"]
    ]
    assert changes == [64, 128, 64]


def test_machines_with_different_settings_are_refused(
    corpus: Path, tmp_path: Path, hosts: list[str]
) -> None:
    command = [*job(corpus, tmp_path), *NODES, "--jobtype", "local_1"]
    jobs = [
        start([*command, "--node-rank", str(rank), f"fairseq.common.seed={rank}"], host)
        for rank, host in enumerate(hosts)
    ]
    for log in finish(*jobs, code=2):
        assert log.count("error: ") == 1
        assert "  - settings: rank 1 on " in log
        assert "Traceback" not in log


def test_four_processes_equal_one_process_with_four_times_the_batches(
    corpus: Path, tmp_path: Path
) -> None:
    """The results differ only by rounding, because gradients are added in another order.

    The BERT of the small corpus has no dropout.
    """
    common = ["fairseq.optimization.max_epoch=1", "fairseq.common.seed=5"]
    train(
        VIDEOCLIP,
        corpus,
        tmp_path / "four",
        *common,
        jobtype="local_4",
    )
    train(
        VIDEOCLIP,
        corpus,
        tmp_path / "one",
        *common,
        "fairseq.optimization.update_freq=[4]",
    )
    one, four = outcome(tmp_path / "one"), outcome(tmp_path / "four")
    for (*row, loss), (*other_row, other) in zip(one[1], four[1], strict=True):
        assert row == other_row
        assert loss == pytest.approx(other, abs=2e-3)  # three digits are logged
    worst = max(float((one[0][name] - four[0][name]).abs().max()) for name in one[0])
    assert worst < 2e-4
    plans = [
        json.loads((tmp_path / name / "retri" / "plan_e1.json").read_text())
        for name in ("one", "four")
    ]
    assert plans[0]["batches"] == plans[1]["batches"]


def test_three_processes_share_eight_batches(corpus: Path, tmp_path: Path) -> None:
    """In the last update, one process has no batch."""
    options = ["fairseq.optimization.max_epoch=1"]
    train(VIDEOCLIP, corpus, tmp_path, *options, jobtype="local_3")
    updates = [row for row in read_metrics(tmp_path) if row["split"] == "train"]
    assert len(updates) == 3
