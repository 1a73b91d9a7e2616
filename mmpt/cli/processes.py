"""Runs the processes of a job. When one of them fails, the others are ended, and its exit code is
returned.

Processes are forked. On the CPU, each then runs a function. This saves the seconds of importing
everything again. With a GPU, which a forked process cannot use, each executes a command.

`python -m mmpt.cli.processes 2 fairseq-train ...` starts two copies of the command with fairseq's
rank flags.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

from mmpt.errors import EXIT_CODE
from mmpt.utils.command import end_with_parent
from mmpt.utils.killed import describe_signal

POLL_S = 0.05
Run = Callable[[Sequence[str], Mapping[str, str]], None]
"""Runs a command (argv) with variables added to its environment, in a forked process."""


def execute(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Replaces this process by a program."""
    try:
        os.execvpe(command[0], list(command), os.environ | env)
    except OSError as err:
        sys.stderr.write(f"error: {command[0]}: {err.strerror}.\n")
        sys.exit(EXIT_CODE)


def run_all(works: Sequence[Callable[[], None]], grace_s: float = 10.0) -> int:
    """Runs functions at the same time, each in its own process. When one fails, ends the others.

    If several fail at the same moment, a user's mistake (exit code 2) is returned first, then the
    end by a signal, which is also reported. The other failures mostly follow from these.

    Ctrl-C, SIGTERM and SIGHUP end every process. Each has its own session, so that its helpers
    (loader workers) end with it, and so that Ctrl-C causes one message, not one per process.

    Args:
        works: the functions. Each returns (exit code 0), raises `SystemExit` or executes a program.
            No OpenMP threads may have run in this process: libgomp would wait for them forever.
        grace_s: seconds between SIGTERM and SIGKILL.
    Returns:
        0, or the exit code of the first failure. It is 128 + s for a process that signal s killed,
        and if this process received signal s.
    """
    fork = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []
    received: list[int] = []  # signals; what a handler raises inside a fork hook would be lost
    handlers: dict[signal.Signals, Any] = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A signal that is ignored, as under nohup, stays ignored.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            handlers[signum] = signal.signal(signum, lambda number, _: received.append(number))
    try:
        for work in works:
            process = fork.Process(target=_run_child, args=(work, list(handlers)))
            process.start()
            processes.append(process)
        while not received:
            codes = [process.exitcode for process in processes]
            if any(codes):
                time.sleep(POLL_S)  # peers that fail because of it may have been seen first
                if not received:  # else the signal may have reached the processes, too
                    return _first_failure(processes)
                break
            if None not in codes:
                return 0
            time.sleep(POLL_S)
        return 128 + received[0]
    finally:
        _end(processes, grace_s)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _run_child(work: Callable[[], None], handled: Sequence[signal.Signals]) -> None:
    """Runs in the forked process."""
    os.setsid()
    end_with_parent(signal.SIGTERM)
    for signum in handled:
        is_interrupt = signum == signal.SIGINT
        signal.signal(signum, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
    # fairseq's use of hydra and torch makes Python warn at every start.
    if "PYTHONWARNINGS" not in os.environ:
        os.environ["PYTHONWARNINGS"] = "ignore::UserWarning,ignore::FutureWarning"
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
    work()


def _first_failure(processes: Sequence[BaseProcess]) -> int:
    """Returns the exit code of the failure that counts, and reports the end by a signal."""
    codes = [process.exitcode or 0 for process in processes]
    killed = [rank for rank, code in enumerate(codes) if code < 0]
    if EXIT_CODE in codes:
        return EXIT_CODE
    if not killed:
        return max(codes)
    # A process may abort because another one of its group is gone.
    rank = min(killed, key=lambda rank: codes[rank] == -signal.SIGABRT)
    which = f"rank {rank} of {len(processes)} (pid {processes[rank].pid})"
    sys.stderr.write(f"error: {which} {describe_signal(-codes[rank])}\n")
    return 128 - codes[rank]


def _end(processes: Sequence[BaseProcess], grace_s: float) -> None:
    """Ends every process still running, and what it started: SIGTERM, then SIGKILL after `grace_s`
    seconds.
    """
    running = [process.pid for process in processes if process.exitcode is None and process.pid]
    for pid in running:  # not reaped yet, so the number is still ours
        _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        # `join` with a time limit would wait forever for a process that executes a program.
        while process.exitcode is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if process.exitcode is None and process.pid:
            _signal_group(process.pid, signal.SIGKILL)
            process.join()


def _signal_group(pid: int, signum: signal.Signals) -> None:
    """Sends a signal to a process and what it started; to it alone if it has no session yet."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        os.kill(pid, signum)


def run_ranks(size: int, command: Sequence[str], run: Run, grace_s: float) -> int:
    """Runs copies of a fairseq-train command, each with the flags and the environment of its rank.

    Args:
        size: the number of copies.
        run: what runs a copy.
        grace_s: as in `run_all`.
    Returns:
        The exit code.
    """
    env: dict[str, str] = {}
    if "--cpu" in command:
        env["CUDA_VISIBLE_DEVICES"] = ""  # fairseq touches every GPU that it sees
    if size == 1:
        return run_all([partial(run, command, env)], grace_s)
    command = [*command, "--distributed-no-spawn"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # a port that nobody listens on
        command += ["--distributed-init-method", f"tcp://127.0.0.1:{probe.getsockname()[1]}"]
    if "--cpu" in command:
        # Each process gets its share of the cores.
        threads = max((os.cpu_count() or 1) // size, 1)
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        if "GLOO_SOCKET_IFNAME" not in os.environ and sys.platform == "linux":
            env["GLOO_SOCKET_IFNAME"] = "lo"  # one machine; its host name need not resolve
    works = []
    for rank in range(size):
        own = [*command, "--distributed-rank", str(rank)]
        if "--cpu" not in command:
            own += ["--device-id", str(rank)]
        works.append(partial(run, own, env | {"RANK": str(rank)}))
    return run_all(works, grace_s)


def main(argv: Sequence[str]) -> int:
    """Runs `N COMMAND...`: N processes of the fairseq-train command; returns the exit code."""
    return run_ranks(int(argv[0]), argv[1:], execute, grace_s=10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
