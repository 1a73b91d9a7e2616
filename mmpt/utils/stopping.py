"""A request to stop a training run: a signal of a batch system, a closed terminal, or Ctrl-C.

A batch system sends a signal some time before it ends a job. The training run then completes its
update, saves its state and ends. While there is nothing to save, it ends at once.

A thread receives the signals. Python runs the handlers of signals in the main thread, between two
operations of the interpreter. The main thread may be in a single operation for minutes, such as
building an index or waiting for another process.
"""

import os
import signal
import threading
import time
from collections.abc import Collection
from contextlib import suppress

import psutil

from mmpt.errors import REQUEUE_CODE
from mmpt.utils.killed import STOP_SIGNALS

SIGNALS = tuple(signum.name for signum in STOP_SIGNALS)
"""Signals that ask a training run to stop. SIGINT (Ctrl-C) always does."""
KILL_S = 2.0
"""Longest time to wait for the end of killed workers. One may wait for a disk, uninterruptibly."""


class StopRequest:
    """The signals that this process has received, and what they cause.

    Loader workers, which batch systems signal too, are protected: they block the signals, because
    the batches that they prepare are needed until the state is saved.

    SIGHUP has no effect if it is ignored, as under `nohup`.

    Args:
        names: names of the signals, in addition to SIGINT.
    """

    def __init__(self, names: Collection[str] = SIGNALS):
        self._numbers = {signal.SIGINT, *(signal.Signals[name] for name in names)}
        self._received: signal.Signals | None = None
        self._is_saving = False
        self._is_ending = threading.Event()

    def __bool__(self) -> bool:
        """True if a signal was received."""
        return self._received is not None

    def listen(self) -> None:
        """Installs the handlers and starts the thread. Only the main thread may call this."""
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as under nohup
            self._numbers.discard(signal.SIGHUP)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        for number in self._numbers:
            # With a handler in Python, the interpreter writes the signal's number to the pipe.
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        os.register_at_fork(
            before=self._stay_if_ending, after_in_child=self._ignore_in_child
        )
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    @property
    def name(self) -> str:
        """Name of the signal that was received."""
        return "another process" if self._received is None else self._received.name

    @property
    def exit_code(self) -> int:
        """Exit code of a process that was stopped: `REQUEUE_CODE`, or 130 after Ctrl-C."""
        return 128 + signal.SIGINT if self._received == signal.SIGINT else REQUEUE_CODE

    def save_first(self) -> None:
        """From now on, the training run saves its state before it ends."""
        self._is_saving = True

    def end_at_once(self) -> None:
        """From now on, a signal ends the process at once, as there is nothing to save."""
        self._is_saving = False
        if self:
            self.end("nothing is lost")

    def end(self, result: str) -> None:
        """Ends this process and its loader workers.

        Args:
            result: what has happened to the state, for the message.
        """
        if os.environ.get("RANK", "0") == "0":
            # The same happens in all processes of a run.
            message = f"stopped by {self.name}: {result}\n"
            with suppress(OSError):
                os.write(2, message.encode())
        self._is_ending.set()
        end_children()
        os._exit(self.exit_code)

    def _watch(self, reader: int) -> None:
        """Receives the numbers of signals. Signals that were not asked for are ignored."""
        while True:
            for number in os.read(reader, 64):
                if number in self._numbers:
                    self._receive(signal.Signals(number))

    def _receive(self, number: signal.Signals) -> None:
        is_second_interrupt = number == signal.SIGINT == self._received
        self._received = self._received or number
        if is_second_interrupt:
            self.end("the updates since the last checkpoint are repeated")
        if not self._is_saving:
            self.end("nothing is lost")

    def _stay_if_ending(self) -> None:
        """Runs before a fork. While the process ends, no thread may start further workers."""
        if self._is_ending.is_set():
            threading.Event().wait()

    def _ignore_in_child(self) -> None:
        """Runs in a forked process, which must not pass signals to its parent's thread."""
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)


def end_children() -> None:
    """Kills loader workers that are left when a process exits.

    They block SIGTERM, with which `multiprocessing` would try to end them. `multiprocessing` also
    does not know a worker that another thread is starting. If such a worker were left, it would
    keep open the pipe by which the launcher notices the end of this process.
    """
    if threading.current_thread() is threading.main_thread():
        # torch's handler reports the end as an error.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    here = psutil.Process()
    command = here.cmdline()
    deadline = time.monotonic() + KILL_S
    # A forked process has the command line of its parent until it is dead.
    while workers := [child for child in here.children() if _has(child, command)]:
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)


def _has(process: psutil.Process, command: list[str]) -> bool:
    """Returns whether a process is alive and has this command line."""
    try:
        return process.cmdline() == command
    except psutil.NoSuchProcess:
        return False
