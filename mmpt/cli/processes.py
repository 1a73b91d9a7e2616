"""Runs the processes of a job with torch's elastic launcher, the engine of `torchrun`.

The launcher meets the launchers of other machines, starts the processes of this one, watches them,
and ends or restarts all of them when one fails. This module adds the following:

- A job on one machine needs no network and no host name. Its only listener is on 127.0.0.1.
- On the CPU, processes are forked. This saves the seconds of importing everything again. A GPU
  cannot be used in a forked process, so with GPUs each process executes Python.
- A signal ends the job with one message. The processes also end if the launcher is killed.
- The exit code is that of the failure that caused the others.
- Processes that were asked to stop are not restarted.

`python -m mmpt.cli.processes MODULE ARG...` is the program of a process.
"""

import importlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import psutil
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
)
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher import api
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mmpt.cli.agent import Agent
from mmpt.cli.nodes import ONE_NODE, Nodes
from mmpt.errors import EXIT_CODE
from mmpt.utils.command import adopt_orphans, end_with_parent
from mmpt.utils.killed import STOP_SIGNALS, describe_signal

LOCALHOST = "127.0.0.1"
POLL_S = 0.1
"""Seconds between two checks of the processes."""
LAUNCHER = "MMPT_LAUNCHER_PID"
"""Variable that names the launcher of a process."""
CAUSE_FIRST_S = 1.0
"""Seconds that a failed process waits before it exits, unless it has found a user's mistake.

Its failure may follow from a user's mistake in another process. The launcher ends all processes as
soon as it sees a failure, so it must see the mistake first. On a busy machine, the process with the
mistake may be later by this much."""
RAISE_AGAIN_S = 0.2
"""Seconds between attempts to raise the exception of a signal; see `_raise_on_signals`."""
GRACE_S = 120
"""Seconds that a job has to save its state and to end before it is killed."""
SIGNALS = (signal.SIGINT, *STOP_SIGNALS)
"""Signals that end a job."""


class LocalRendezvous(RendezvousHandler):
    """The rendezvous of a job on one machine, where there is only one launcher.

    torch's own handlers listen on every network interface and look up the host's name.
    """

    def __init__(self, params: RendezvousParameters):
        self._run_id = params.run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """Opens a new store, through which the processes find each other, on a free port."""
        listener = socket.create_server((LOCALHOST, 0))
        port = listener.getsockname()[1]
        # The store owns the listener from now on, and ends with the last reference to it.
        store = TCPStore(
            LOCALHOST,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        return RendezvousInfo(store, 0, 1, RendezvousStoreInfo(LOCALHOST, port))

    def get_backend(self) -> str:
        """Returns the name that selects this class."""
        return "local"

    def get_run_id(self) -> str:
        """Returns the id of the job."""
        return self._run_id

    @property
    def use_agent_store(self) -> bool:
        """True: the launcher's store also serves the processes."""
        return True

    def num_nodes_waiting(self) -> int:
        """Returns 0: no other machine joins."""
        return 0

    def is_closed(self) -> bool:
        """Returns False: nobody closes it."""
        return False

    def set_closed(self) -> None:
        """Does nothing, as there is no other launcher."""

    def shutdown(self) -> bool:
        """Returns True: nothing is left open."""
        return True


rendezvous_handler_registry.register("local", LocalRendezvous)
api.LocalElasticAgent = Agent  # type: ignore[attr-defined]  # `elastic_launch` runs it
for _name in ("distributed.elastic", "distributed.launcher", "multiprocessing.spawn"):
    # The launcher logs, with tracebacks, what is reported here in one line.
    _logger = logging.getLogger(f"torch.{_name}")
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False


def run(
    module: str,
    argv: Sequence[str],
    size: int = 1,
    nodes: Nodes = ONE_NODE,
    *,
    num_threads: int | None = None,
) -> int:
    """Runs `main(argv)` of a module in `size` processes on this machine.

    If several processes fail at the same moment, the exit code is that of the likely cause. A
    user's mistake (exit code 2) comes first, then a process that a signal has killed, which is also
    reported. Other failures mostly follow from these.

    Signals that end a job are passed on to every process. Each process has its own session, so that
    Ctrl-C causes one message, not one per process. Processes that still run after `GRACE_S` seconds
    are killed.

    Args:
        module: name of the module. What its `main` returns is the exit code of the process.
        argv: the arguments. The variables of torchrun (RANK, WORLD_SIZE, ...) are set.
        size: number of processes on this machine.
        nodes: the machines of the job.
        num_threads: fork the processes, and let torch use this number of threads in each. No OpenMP
            threads may have run in this process: libgomp would wait for them forever. None: start
            a new Python interpreter for each process.
    Returns:
        0, or the exit code of the failure. It is 128 + s if signal s has killed a process, or was
        received by this process.
    Raises:
        LaunchError: the machines do not find each other.
    """
    log_dir = tempfile.mkdtemp(prefix="mmpt_launch_")
    os.environ[LAUNCHER] = str(os.getpid())
    try:
        with (
            _raise_on_signals(),
            _kill_leftovers(),
            _skip_name_lookups(),
            nodes.explain_errors(),
        ):
            config = LaunchConfig(
                nproc_per_node=size,
                logs_specs=DefaultLogsSpecs(log_dir=log_dir),
                monitor_interval=POLL_S,
                start_method="fork",
                signals_to_handle="",  # they are handled here
                shutdown_timeout=GRACE_S,
                **nodes.launch_settings(),
            )
            if num_threads is None:
                program = ["-m", "mmpt.cli.processes", module, *argv]
                # The launcher expands `$NAME` in arguments, and replaces `$$` with `$`.
                escaped = [arg.replace("$", "$$") for arg in program]
                elastic_launch(config, sys.executable)(*escaped)
            else:
                elastic_launch(config, _in_fork)(module, list(argv), num_threads)
    except SignalException as end:
        return 128 + end.sigval
    except ChildFailedError as error:
        return _report(error.failures, f" of {size}" if nodes.largest == 1 else "")
    finally:
        shutil.rmtree(log_dir, ignore_errors=True)
    return 0


@contextmanager
def _raise_on_signals() -> Iterator[None]:
    """Makes each signal that ends a job raise SignalException during the block.

    A signal that is ignored, as SIGHUP under nohup, stays ignored.
    """

    # Python drops an exception that a handler raises while a hook of `fork` or a finaliser runs.
    # So a timer raises it again and again, until the launcher handles it. Python's messages about
    # dropped exceptions are hidden.
    received: list[signal.Signals] = []

    def end(number: int, _: FrameType | None) -> None:
        # Batch systems may send several signals. The later ones must not interrupt the end of the
        # job. A second Ctrl-C ends it at once.
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        received.append(signal.Signals(number))
        signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_S, RAISE_AGAIN_S)
        raise SignalException(f"received signal {number}", received[0])

    def end_again(*_: Any) -> None:
        # Stop the timer once the exception is being handled.
        if isinstance(sys.exc_info()[1], SignalException):
            signal.setitimer(signal.ITIMER_REAL, 0)
        else:
            raise SignalException(f"received signal {received[0]}", received[0])

    def report_dropped(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, SignalException):
            report(dropped)

    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    timer = signal.signal(signal.SIGALRM, end_again)
    report, sys.unraisablehook = sys.unraisablehook, report_dropped
    try:
        for signum, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(signum, end)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, timer)
        sys.unraisablehook = report
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


@contextmanager
def _skip_name_lookups() -> Iterator[None]:
    """Keeps torch from looking up the full name of this machine, for events that nobody reads.

    Each look-up takes ten seconds if the name server does not answer.
    """
    kept = socket.getfqdn
    socket.getfqdn = lambda name="": name or socket.gethostname()
    try:
        yield
    finally:
        socket.getfqdn = kept


@contextmanager
def _kill_leftovers() -> Iterator[None]:
    """Kills the processes that the block has left running, such as loader workers."""
    adopt_orphans()
    here = psutil.Process()
    before = here.children(recursive=True)
    try:
        yield
    finally:
        for process in set(here.children(recursive=True)).difference(before):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _report(failures: Mapping[int, ProcessFailure], total: str) -> int:
    """Returns the exit code of the likely cause, as `run` does, and reports the end by a signal.

    Args:
        failures: the failures by rank. Processes that the launcher has ended may be among them.
        total: " of 2" for the message, or an empty string.
    """
    codes = {}
    for rank, failure in failures.items():
        if failure.exitcode != -signal.SIGTERM:
            codes[rank] = failure.exitcode
    if not codes:  # all were ended by SIGTERM
        codes = {rank: failure.exitcode for rank, failure in failures.items()}
    if EXIT_CODE in codes.values():
        return EXIT_CODE
    killed = [rank for rank, code in codes.items() if code < 0]
    if not killed:
        return max(codes.values())
    # An abort is reported only if there is nothing else: a process may abort because another one of
    # its group is gone.
    rank = min(killed, key=lambda rank: codes[rank] == -signal.SIGABRT)
    which = f"rank {rank}{total} (pid {failures[rank].pid})"
    sys.stderr.write(f"error: {which} {describe_signal(-codes[rank])}\n")
    return 128 - codes[rank]


def _in_fork(module: str, argv: list[str], num_threads: int) -> None:
    """Runs `main(argv)` of a module in a process that the launcher has forked."""
    os.setsid()
    _restore_signals()
    torch.set_num_threads(num_threads)
    run_module(module, argv)


def run_module(module: str, argv: Sequence[str]) -> None:
    """Runs `main(argv)` of a module in this process, and exits unless it returns 0."""
    end_with_parent("SIGTERM")
    if os.environ.get(LAUNCHER) not in (None, str(os.getppid())):
        # The launcher was killed while this process was loading Python, which takes seconds.
        sys.exit(1)
    # fairseq's use of hydra and torch makes Python warn at every start.
    if "PYTHONWARNINGS" not in os.environ:
        os.environ["PYTHONWARNINGS"] = "ignore::UserWarning,ignore::FutureWarning"
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
    try:
        command = importlib.import_module(module).main
        code = command(argv, name=f"mmpt {module.rpartition('.')[2]}")
    except SystemExit as end:
        code = end.code
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    # From now on the launcher can end this process, even if it waits for the others.
    _restore_signals()
    if code not in (0, None, EXIT_CODE):
        time.sleep(CAUSE_FIRST_S)
    if code:
        sys.exit(code)


def _restore_signals() -> None:
    """Gives the signals that end a job their default effect, unless they are ignored."""
    for signum in SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            is_interrupt = signum == signal.SIGINT
            signal.signal(
                signum, signal.default_int_handler if is_interrupt else signal.SIG_DFL
            )


if __name__ == "__main__":
    run_module(sys.argv[1], sys.argv[2:])
