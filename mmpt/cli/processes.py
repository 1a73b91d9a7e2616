"""Run a command as one or N processes and end them together: the first failure's exit code is ours,
none stays behind.

`python -m mmpt.cli.processes 2 fairseq-train ...` starts two copies of the command with fairseq's
rank flags.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from mmpt.errors import EXIT_CODE

POLL_S = 0.05
HIDE_GPUS = {"CUDA_VISIBLE_DEVICES": ""}
"""What a CPU job's processes get: fairseq touches every GPU that it sees."""
PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class _Signals:
    """Remembers the first SIGINT, SIGTERM or SIGHUP; what a handler raises inside a fork hook would
    be lost.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        wanted = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        # As nohup sets it.
        heeded = [signum for signum in wanted if signal.getsignal(signum) is not signal.SIG_IGN]
        self._before = {signum: signal.signal(signum, self._remember) for signum in heeded}

    def _remember(self, signum: int, _frame: FrameType | None) -> None:
        self.stop = self.stop or signum

    def restore(self) -> None:
        """Put the former handlers back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def run_all(
    commands: Sequence[Sequence[str]],
    extra_env: Sequence[Mapping[str, str]] = (),
    grace_s: float = 10.0,
) -> int:
    """Run `commands` at the same time and return 0, or the exit code of the first that fails; the
    others are ended.

    Of failures at the same moment a user's mistake (exit code 2) counts: the others follow from it.

    Ctrl-C, SIGTERM and SIGHUP end every command. Each command is a session of its own, so that its
    helpers (loader workers) end with it and so that Ctrl-C gives one message, not one per process.

    Args:
        commands: argv of each process.
        extra_env: variables to add to each process's environment; none when empty.
        grace_s: seconds between SIGTERM and SIGKILL.
    Returns:
        The exit code; 128 + s for a process killed by signal s, and for us when signal s asked us
        to stop.
    """
    processes: list[subprocess.Popen[bytes]] = []
    signals = _Signals()
    try:
        for index, command in enumerate(commands):
            if signals.stop is not None:
                break
            env = {**os.environ, **(extra_env[index] if extra_env else {})}
            started = subprocess.Popen(
                command, env=env, start_new_session=True, preexec_fn=_end_with_parent
            )
            processes.append(started)
        return _wait_for_first_failure(processes, signals)
    finally:
        _end(processes, grace_s)
        signals.restore()


def _wait_for_first_failure(processes: Sequence[subprocess.Popen[bytes]], signals: _Signals) -> int:
    while signals.stop is None:
        codes = [process.poll() for process in processes]
        if any(codes):
            time.sleep(POLL_S)  # peers that fail because of it may have been seen first
            failed = [
                code if code > 0 else 128 - code
                for code in (process.poll() for process in processes)
                if code
            ]
            return EXIT_CODE if EXIT_CODE in failed else failed[0]
        if None not in codes:
            return 0
        time.sleep(POLL_S)
    return 128 + signals.stop


def _end(processes: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """End every process still running, and what it started: SIGTERM, then SIGKILL after `grace_s`
    seconds.
    """
    for process in processes:
        _signal_group(process, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGKILL)
            process.wait()


def _signal_group(process: subprocess.Popen[bytes], signum: int) -> None:
    if process.poll() is None:  # not reaped yet, so the number is still ours
        os.killpg(process.pid, signum)


def _end_with_parent() -> None:
    """In the child: be sent SIGTERM should the parent be killed in a way it cannot catch
    (Linux).
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def rank_flags(command: Sequence[str], rank: int, port: int) -> list[str]:
    """Return `command` with the fairseq flags of process `rank`; on GPUs each process takes the
    device of its rank.
    """
    flags = ["--distributed-no-spawn", "--distributed-init-method", f"tcp://127.0.0.1:{port}"]
    flags += ["--distributed-rank", str(rank)]
    if "--cpu" not in command:
        flags += ["--device-id", str(rank)]
    return [*command, *flags]


def rank_env(command: Sequence[str], rank: int, size: int) -> dict[str, str]:
    """Return the variables to add for process `rank`: its rank, and on CPU its share of the
    cores.
    """
    env = {"RANK": str(rank)}
    if "--cpu" in command:
        env |= HIDE_GPUS
        if "OMP_NUM_THREADS" not in os.environ:
            env["OMP_NUM_THREADS"] = str(max((os.cpu_count() or 1) // size, 1))
        if "GLOO_SOCKET_IFNAME" not in os.environ and sys.platform == "linux":
            env["GLOO_SOCKET_IFNAME"] = "lo"  # one machine; its host name need not resolve
    return env


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m mmpt.cli.processes N COMMAND...`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mmpt.cli.processes", description=__doc__)
    parser.add_argument("size", type=int, help="number of processes")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="the fairseq-train command of one process"
    )
    args = parser.parse_args(argv)
    if args.size < 1 or not args.command:
        parser.error(
            f"needs at least 1 process and a command, but got {args.size} and {args.command}"
        )
    port = free_port()
    commands = [rank_flags(args.command, rank, port) for rank in range(args.size)]
    return run_all(commands, [rank_env(args.command, rank, args.size) for rank in range(args.size)])


if __name__ == "__main__":
    sys.exit(main())
