"""The frame of a command: what the user can fix is one message and exit code 2, a stop is one line;
no tracebacks.

SIGTERM, which batch systems send at the end of a job's time, is treated as Ctrl-C: temporary files
go, and reports of what was done are written.
"""

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mmpt.errors import EXIT_CODE, INTERRUPTED, UserError, message_of
from mmpt.utils.io import DISK_FULL, write_error
from mmpt.utils.log import setup_logging

PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

TERMINATED = 128 + signal.SIGTERM

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
        stopped: what to say when Ctrl-C or SIGTERM ends it, as in "run the same command again to go
            on".
    """
    try:
        setup_logging()
        with _sigterm_as_interrupt():
            return work() or 0
    except UserError as err:
        problem = f"error: {message_of(err)}"
    except OSError as err:
        file = err.filename2 or err.filename  # filename2: the target of a failed rename
        reason = f"{f'{file}: ' if file else ''}{err.strerror or err}. Fix that and run the same"
        problem = f"error: {reason} command again."
        if err.errno in DISK_FULL:
            problem = f"error: {write_error(err, file or 'a file')}"
    except ModuleNotFoundError as err:
        if err.name not in EXTRA_OF:
            raise
        extra = f"'mmpt[{EXTRA_OF[err.name]}]'"
        problem = f"error: {err.name} is not installed. Install it with: pip install {extra}"
    except KeyboardInterrupt as err:
        sys.stderr.write(f"interrupted; {stopped}\n")
        return TERMINATED if err.args == (signal.SIGTERM,) else INTERRUPTED
    sys.stderr.write(f"{problem}\n")
    return EXIT_CODE


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raises an interrupt where the main thread is when SIGTERM comes."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent(signum: int) -> None:
    """Makes the system send `signum` to this process when its parent is killed (Linux)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signum)
