"""A request to stop a training run: a signal of a batch system, a closed terminal, or Ctrl-C.

A batch system sends a signal some time before it ends a job. The training run then completes its
update, saves its state and ends. While there is nothing to save, it ends at once.

A thread receives the signals. Python runs the handlers of signals in the main thread, between two
operations of the interpreter. The main thread may be in a single operation for minutes, such as
building an index or waiting for another process.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Collection
from contextlib import suppress

import psutil

from mmpt.errors import REQUEUE_CODE
from mmpt.utils.killed import STOP_SIGNALS

SIGNALS = tuple(signum.name for signum in STOP_SIGNALS)
"""Signals that ask a training run to stop. SIGINT (Ctrl-C) always does."""
FORK_S = 1.0
"""Longest time to wait for another thread that is starting a worker."""


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
        self._end_lock = threading.Lock()
        self._fork_lock = threading.Lock()

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
            before=self._begin_fork,
            after_in_parent=self._end_fork,
            after_in_child=self._ignore_in_child,
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
        self._end_lock.acquire()  # a second thread waits here until the process has ended
        try:
            if os.environ.get("RANK", "0") == "0":
                # The same happens in all processes of a run.
                message = f"stopped by {self.name}: {result}\n"
                with suppress(OSError):
                    os.write(2, message.encode())
            self._fork_lock.acquire(timeout=FORK_S)  # no thread starts further workers
            end_children()
        finally:
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

    def _begin_fork(self) -> None:
        """Runs before a fork. While the process ends, `end` holds the lock."""
        self._fork_lock.acquire()

    def _end_fork(self) -> None:
        """Runs after a fork, in the process that has called it."""
        self._fork_lock.release()

    def _ignore_in_child(self) -> None:
        """Runs in a forked process, which must not pass signals to its parent's thread."""
        self._fork_lock = threading.Lock()  # the copy of the parent's lock is held
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)


def end_children() -> None:
    """Kills loader workers that are left when a process exits.

    They block SIGTERM, with which `multiprocessing` would try to end them. A worker that is left
    would keep open the pipe by which the launcher notices the end of this process.
    """
    if threading.current_thread() is threading.main_thread():
        # torch's handler reports the end as an error.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()
    # `multiprocessing` does not know a worker yet that another thread is starting. Unlike other
    # programs that this process has started, a forked worker has the same command line.
    with suppress(psutil.Error):
        here = psutil.Process()
        command = here.cmdline()
        for process in here.children():
            with suppress(psutil.Error):  # one that has just ended has no command line
                if process.cmdline() == command:
                    process.kill()
