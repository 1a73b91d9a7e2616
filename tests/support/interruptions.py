"""Training runs in forks of this process, which can be interrupted and compared.

fairseq is imported only once, so that a tiny run takes about two seconds. Start these runs in a
separate process: a process in which OpenMP threads have run cannot be forked safely.
"""

import atexit
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fairseq_cli.train
import torch

import mmpt.tasks.fairseqmmtask  # noqa: F401  before the fork
from mmpt.config import RunConfig, load_config
from mmpt.config.loader import save_resolved, with_run_dir
from mmpt.config.run import RESETS, fairseq_flags, last_checkpoint
from mmpt.tasks.checks import check_start
from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.io import read_json_lines
from mmpt.utils.log import FORMAT
from tests.support.paths import ROOT

WALL_CLOCK = {
    *(
        "time",
        "refresh_s",
        "wps",
        "ups",
        "train_wall",
        "wall",
        "clips_per_s",
        "videos_per_s",
        "tflops",
    ),
    *("mfu", "data_wait", "memory_gb", "minutes_left"),
}
"""Metrics that measure time and memory. They differ from run to run."""
LIMIT_S = 200
"""Seconds after which a training run that does not end is killed."""


@dataclass
class Training:
    """One training run in `size` processes, which can be started several times.

    Args:
        yaml: the YAML of the run.
        overrides: overrides of the YAML, without `save_dir`.
        save_dir: folder of the run.
        size: number of processes.
        in_child: called in each process before the training run, with the rank.
    """

    yaml: str
    overrides: Sequence[str]
    save_dir: Path
    size: int = 1
    in_child: Callable[[int], None] = lambda rank: None
    pids: list[int] = field(default_factory=list)

    @property
    def log(self) -> Path:
        """The file with the output of all processes and of all starts."""
        return self.save_dir.with_suffix(".log")

    def start(self) -> None:
        """Starts the processes as the launcher does: checks the checkpoint, writes the config."""
        config = load_config(
            self.yaml, [*self.overrides, f"fairseq.checkpoint.save_dir={self.save_dir}"]
        )
        config = with_run_dir(config)
        check_start(config)
        saved = self.save_dir / "config.yaml"
        save_resolved(config, saved)
        command = self.command(config, saved)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if self.size > 1:
            command += ["--distributed-init-method", f"tcp://127.0.0.1:{port}"]
        self.pids = [self._fork(command, rank) for rank in range(self.size)]

    def command(self, config: RunConfig, yaml: Path) -> list[str]:
        """Returns the command line of fairseq."""
        is_new = last_checkpoint(config.save_dir) is None
        command = ["fairseq-train", str(yaml), "--user-dir", str(ROOT / "mmpt")]
        command += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
        command += fairseq_flags(config, without=() if is_new else RESETS.split())
        command += [] if "--cpu" in command else ["--cpu"]
        if self.size > 1:
            command += [
                "--distributed-world-size",
                str(self.size),
                "--distributed-no-spawn",
            ]
            command += ["--distributed-backend", "gloo", "--ddp-backend", "no_c10d"]
        return command

    def _fork(self, command: list[str], rank: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        code = 1
        try:
            if self.size > 1:
                command = [*command, "--distributed-rank", str(rank)]
            self.in_child(rank)
            os.environ |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
            train(command)
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def has_ended(self) -> bool:
        """Returns whether the process of rank 0 has ended."""
        return _has_ended(self.pids[0])

    def wait(self, grace_s: float = 60.0) -> list[int]:
        """Waits for all processes and returns their exit codes, -N for an end by signal N.

        When one process fails, the others get SIGTERM, and SIGKILL `grace_s` seconds later. All
        processes are killed after `LIMIT_S` seconds.
        """
        codes: dict[int, int] = {}
        limit = time.monotonic() + LIMIT_S
        deadline: float | None = None
        while len(codes) < self.size:
            for pid in self.pids:
                if pid not in codes and _has_ended(pid):
                    codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            failed = any(codes.values())
            if failed and deadline is None:
                deadline = time.monotonic() + grace_s
                self._signal_others(codes, signal.SIGTERM)
            elif time.monotonic() > (deadline or limit):
                self._signal_others(codes, signal.SIGKILL)
            time.sleep(0.01)
        return [codes[pid] for pid in self.pids]

    def _signal_others(self, codes: dict[int, int], number: signal.Signals) -> None:
        for pid in self.pids:
            if pid not in codes:
                os.killpg(pid, number)

    def run(self) -> None:
        """Trains to the end of the run."""
        self.start()
        codes = self.wait()
        assert not any(codes), f"{codes}\n{self.log.read_text()[-4000:]}"

    def signal(self, number: int, ranks: Sequence[int] | None = None) -> None:
        """Sends a signal to the process groups of some ranks, or of all."""
        for rank in range(self.size) if ranks is None else ranks:
            os.killpg(self.pids[rank], number)


def _has_ended(pid: int) -> bool:
    """Returns whether a child has ended, and leaves its exit code to be read."""
    return bool(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))


def train(command: list[str]) -> None:
    """Runs fairseq's program in this process, as the launcher does."""
    sys.argv = command
    logging.basicConfig(
        format=FORMAT, level=logging.INFO, stream=sys.stdout, force=True
    )
    try:
        fairseq_cli.train.cli_main()
    except Exception:
        sys.excepthook(*sys.exc_info())  # the task's hook reports mistakes and exits
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()


def differences(whole: Path, other: Path) -> list[str]:
    """Returns the differences between the folders of two finished runs with the same settings."""
    found = []
    for name in sorted(files(whole) | files(other)):
        a, b = whole / name, other / name
        if not (a.exists() and b.exists()):
            found.append(f"{name} is only in one of them")
        elif name.endswith(".pt"):
            found += [f"{name}: {what}" for what in state_differences(a, b)]
        elif name.endswith(".jsonl"):
            if steady_rows(a) != steady_rows(b):
                found.append(name)
        elif a.read_bytes() != b.read_bytes():
            found.append(name)
    return found


def files(folder: Path) -> set[str]:
    """Returns the names of the files that must be equal in two runs with the same settings."""
    names = {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }
    own = (
        "config.yaml",
        ".lock",
        "run.json",
        "checkpoint_previous.pt",
        "checkpoint_last.pt.damaged",
    )
    return {
        name
        for name in names
        if name not in own and not name.startswith(("run_", "slurm/"))
    }


def steady_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a log of metrics without the metrics of time and memory."""
    steady = []
    for row in read_json_lines(path):
        steady.append({key: row[key] for key in row if key not in WALL_CLOCK})
    return steady


def state_differences(a: Path, b: Path) -> list[str]:
    """Returns the first differences of two checkpoints in weights, optimizer and position."""
    one, two = load_checkpoint(a), load_checkpoint(b)
    found = []
    for entry in ("model", "criterion", "last_optimizer_state"):
        one_flat, two_flat = dict(flatten(one[entry])), dict(flatten(two[entry]))
        found += [
            f"{entry}{key}"
            for key in sorted(one_flat.keys() | two_flat.keys())
            if not same(one_flat.get(key), two_flat.get(key))
        ]
    for key in ("train_iterator", "val_loss", "best"):
        if one["extra_state"].get(key) != two["extra_state"].get(key):
            found.append(key)
    updates = [state["optimizer_history"][-1]["num_updates"] for state in (one, two)]
    if updates[0] != updates[1]:
        found.append(f"num_updates {updates}")
    return found[:3] + ["..."] * (len(found) > 3)


def flatten(value: Any, prefix: str = "") -> Any:
    """Yields (path, leaf) of nested dictionaries and lists."""
    if isinstance(value, dict):
        for key in value:
            yield from flatten(value[key], f"{prefix}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flatten(item, f"{prefix}[{index}]")
    else:
        yield prefix, value


def same(a: Any, b: Any) -> bool:
    """Returns whether two leaves are equal, tensors to the bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return bool(a == b)
