"""Runs a command: sets up logging, and turns errors and signals into a message and an exit code.

An error that the user can fix gives one message and exit code 2, without a traceback. An interrupt
gives a message of one line.

SIGTERM, SIGUSR1 and SIGUSR2, which batch systems send before they end a job, and SIGHUP, which a
terminal sends when it is closed, are treated like Ctrl-C. The command can then remove temporary
files and write reports.
"""

import atexit
import ctypes
import gc
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mmpt.errors import EXIT_CODE, UserError, message_of
from mmpt.utils.help_pages import install_command, page_of, place_of
from mmpt.utils.killed import STOP_SIGNALS, worker_failure
from mmpt.utils.log import setup_logging

# By default, Python's garbage collection runs after every 700 new objects, which takes a tenth of
# the time of large imports, and once more at exit, over all modules.
gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

EXTRA_OF = {
    **dict.fromkeys(("av", "json_stream", "langcodes"), "prepare"),
    **dict.fromkeys(("faiss", "tensorboardX", "psutil", "submitit"), "train"),
    **dict.fromkeys(("matplotlib", "PIL"), "report"),
    "gradio": "app",
}
"""Import name of a package -> the extra of `mmpt` that installs it. Packages that all commands need
are not listed."""


def run_command(
    work: Callable[[], int | None],
    *,
    interrupt_message: str,
    stop_exit_code: int | None = None,
) -> int:
    """Runs `work`, and returns the exit code of the command.

    Args:
        work: returns the exit code, or None for 0. It may raise KeyboardInterrupt with the number
            of the signal as its argument.
        interrupt_message: message for an interrupt, such as "run the same command again to
            continue".
        stop_exit_code: exit code after a signal in `STOP_SIGNALS`. None: 128 + the number of the
            signal.
    """
    received: list[int] = []

    def interrupted(signum: int = signal.SIGINT) -> int:
        drop_closed_terminal()
        sys.stderr.write(f"interrupted; {interrupt_message}\n")
        if stop_exit_code is not None and signum in STOP_SIGNALS:
            return stop_exit_code
        return 128 + signum

    try:
        setup_logging()
        _print_any_text()
        with _stop_signals_as_interrupts(received):
            return work() or 0
    except KeyboardInterrupt as err:
        return interrupted(*err.args)
    except Exception as err:
        if received:
            # Loader workers got the signal too, and their end caused this error.
            return interrupted(*received)
        message = _user_message(err)
        if message is None:
            raise
        page = page_of(err, message)
    see = f"See {place_of(page)}\n" if page else ""
    sys.stderr.write(f"error: {message}\n{see}")
    return EXIT_CODE


def _user_message(err: Exception) -> str | None:
    """Returns the message for an error that the user can fix, or None for a bug in this project."""
    if isinstance(err, UserError):
        return message_of(err)
    if failure := worker_failure(err):
        return str(failure)
    if isinstance(err, OSError):
        # deferred: NumPy, without which `mmpt doctor` must run
        from mmpt.utils.io import DISK_FULL, write_error

        file = err.filename2 or err.filename  # filename2: the target of a failed rename
        if err.errno in DISK_FULL:
            return str(write_error(err, file or "a file"))
        prefix = f"{file}: " if file else ""
        return (
            f"{prefix}{err.strerror or err}. Fix that and run the same command again."
        )
    if isinstance(err, ModuleNotFoundError) and err.name in EXTRA_OF:
        command = install_command(EXTRA_OF[err.name])
        return f"{err.name} is not installed. Install it with: {command}"
    return None


def _print_any_text() -> None:
    """Makes Python print `?` for characters that the encoding of the output lacks.

    Without this, printing them would raise an error, for example to a file on Windows.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def _stop_signals_as_interrupts(received: list[int]) -> Iterator[None]:
    """Makes `STOP_SIGNALS` raise KeyboardInterrupt in the main thread during the block.

    The number of the signal is stored in `received`. A signal that is ignored stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        received[:] = [number]
        raise KeyboardInterrupt(number)

    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        for number, handler in handlers.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def drop_closed_terminal() -> None:
    """Sends the output of this process to /dev/null if its terminal was closed.

    Writing to it would raise an error. Windows has no `poll`, and no signal of a closed terminal.
    """
    if not hasattr(select, "poll"):
        return
    for number in (1, 2):
        poll = select.poll()
        poll.register(number, 0)
        if poll.poll(0):  # closed, or an error
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


def end_with_parent(name: str) -> None:
    """Asks the system to send a signal to this process when its parent dies (Linux only).

    Args:
        name: name of the signal, such as "SIGKILL".
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.Signals[name])


def adopt_orphans() -> None:
    """Makes the orphans of this process's children its own children (Linux only)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
