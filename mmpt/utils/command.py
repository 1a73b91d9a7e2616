"""The frame of a command: what the user can fix is one message and exit code 2, a stop is one line;
no tracebacks.

SIGTERM, which batch systems send at the end of a job's time, is treated as Ctrl-C: temporary files
go, and reports of what was done are written.
"""

import atexit
import ctypes
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mmpt.errors import EXIT_CODE, UserError, message_of
from mmpt.utils.io import DISK_FULL, write_error
from mmpt.utils.killed import worker_failure
from mmpt.utils.log import setup_logging

# By default, Python looks for garbage after every 700 new objects, a tenth of the time of large
# imports, and at the end in all modules.
gc.set_threshold(50_000, 20, 100)
atexit.register(gc.freeze)

PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

EXTRA_OF = {
    **dict.fromkeys(("av", "json_stream"), "prepare"),
    **dict.fromkeys(("faiss", "tensorboardX", "psutil"), "train"),
    **dict.fromkeys(("jinja2", "matplotlib", "PIL"), "report"),
}
"""Import name of a package that only some commands need -> the extra of `mmpt` that installs it."""


def run_command(work: Callable[[], int | None], *, stopped: str) -> int:
    """Do `work` with logging set up, and return the command's exit code.

    Args:
        work: returns the exit code; None is 0.
        stopped: the message when Ctrl-C or another signal ends it, such as "run the same command
            again to continue". `work` may raise KeyboardInterrupt with the number of the signal.
    """
    received: list[int] = []
    try:
        setup_logging()
        with _sigterm_as_interrupt(received):
            return work() or 0
    except KeyboardInterrupt as err:
        return _interrupted(stopped, *err.args)
    except Exception as err:
        if received:  # the signal has also ended loader workers, which caused the error
            return _interrupted(stopped, *received)
        problem = _describe(err)
        if problem is None:
            raise
    sys.stderr.write(f"error: {problem}\n")
    return EXIT_CODE


def _interrupted(stopped: str, signum: int = signal.SIGINT) -> int:
    sys.stderr.write(f"interrupted; {stopped}\n")
    return 128 + signum


def _describe(err: Exception) -> str | None:
    """Returns the message for an error that the user can fix, or None for a bug of ours."""
    if isinstance(err, UserError):
        return message_of(err)
    if failure := worker_failure(err):
        return str(failure)
    if isinstance(err, OSError):
        file = err.filename2 or err.filename  # filename2: the target of a failed rename
        if err.errno in DISK_FULL:
            return str(write_error(err, file or "a file"))
        reason = f"{f'{file}: ' if file else ''}{err.strerror or err}"
        return f"{reason}. Fix that and run the same command again."
    if isinstance(err, ModuleNotFoundError) and err.name in EXTRA_OF:
        extra = f"'mmpt[{EXTRA_OF[err.name]}]'"
        return f"{err.name} is not installed. Install it with: pip install {extra}"
    return None


@contextmanager
def _sigterm_as_interrupt(received: list[int]) -> Iterator[None]:
    """Raises KeyboardInterrupt in the main thread on SIGTERM, and puts its number in `received`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        received[:] = [number]
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(signum: int) -> None:
    """Makes the system send `signum` to this process when its parent is killed (Linux)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signum)
