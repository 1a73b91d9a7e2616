"""Run a command as one or N processes and end them together: the first failure's exit code is ours,
none stays behind.

`python -m mmpt.cli.processes 2 fairseq-train ...` starts two copies of the command with fairseq's
rank flags.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mmpt.errors import EXIT_CODE
from mmpt.utils.command import end_with_parent
from mmpt.utils.killed import end_by_signal

POLL_S = 0.05


def run_all(
    commands: Sequence[Sequence[str]],
    extra_env: Sequence[Mapping[str, str]],
    grace_s: float = 10.0,
) -> int:
    """Runs `commands` at the same time and returns 0, or the exit code of the first that fails; the
    others are ended.

    Of failures at the same moment a user's mistake (exit code 2) counts, then the end by a signal,
    which is reported: the others follow from it.

    Ctrl-C, SIGTERM and SIGHUP end every command. Each command is a session of its own, so that its
    helpers (loader workers) end with it and so that Ctrl-C gives one message, not one per process.

    Args:
        commands: argv of each process.
        extra_env: variables to add to each process's environment.
        grace_s: seconds between SIGTERM and SIGKILL.
    Returns:
        The exit code; 128 + s for a process killed by signal s, and for us when signal s asked us
        to stop.
    """
    processes: list[subprocess.Popen[bytes]] = []
    received: list[int] = []  # signals; what a handler raises inside a fork hook would be lost
    handlers: dict[signal.Signals, Any] = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # One that is ignored, as nohup sets it, stays so.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            handlers[signum] = signal.signal(signum, lambda number, _: received.append(number))
    try:
        for command, more in zip(commands, extra_env, strict=True):
            started = subprocess.Popen(
                command,
                env=os.environ | more,
                start_new_session=True,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )
            processes.append(started)
        while not received:
            codes = [process.poll() for process in processes]
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


def _first_failure(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Returns the exit code of the failure that counts, and reports those that a signal ended."""
    codes = [process.poll() for process in processes]
    if EXIT_CODE in codes:
        return EXIT_CODE
    killed = {rank: -code for rank, code in enumerate(codes) if code and code < 0}
    # A process may abort because another one of its group is gone.
    first = {rank: signum for rank, signum in killed.items() if signum != signal.SIGABRT} or killed
    for rank, signum in first.items():
        which = f"rank {rank} of {len(processes)}" if len(processes) > 1 else "the process"
        sys.stderr.write(f"error: {which} (pid {processes[rank].pid}) {end_by_signal(signum)}\n")
    failed = [128 + signum for signum in first.values()]
    return next(code for code in (*failed, *codes) if code)


def _end(processes: Sequence[subprocess.Popen[bytes]], grace_s: float) -> None:
    """Ends every process still running, and what it started: SIGTERM, then SIGKILL after `grace_s`
    seconds.
    """
    for process in processes:
        if process.poll() is None:  # not reaped yet, so the number is still ours
            os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main(argv: Sequence[str]) -> int:
    """Runs `N COMMAND...`: N processes of the fairseq-train command, each with the flags and the
    environment of its rank; returns the exit code.
    """
    size, command = int(argv[0]), [*argv[1:], "--distributed-no-spawn"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # a port that nobody listens on
        command += ["--distributed-init-method", f"tcp://127.0.0.1:{probe.getsockname()[1]}"]
    env = {}
    if "--cpu" in command:
        # Each process gets its share of the cores.
        threads = max((os.cpu_count() or 1) // size, 1)
        env["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
        if "GLOO_SOCKET_IFNAME" not in os.environ and sys.platform == "linux":
            env["GLOO_SOCKET_IFNAME"] = "lo"  # one machine; its host name need not resolve
    commands = [[*command, "--distributed-rank", str(rank)] for rank in range(size)]
    if "--cpu" not in command:
        for rank, own in enumerate(commands):
            own += ["--device-id", str(rank)]
    return run_all(commands, [env | {"RANK": str(rank)} for rank in range(size)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
