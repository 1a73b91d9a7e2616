"""The frame of a command: what the user can fix is one message and exit code 2, a stop is one line;
no tracebacks.

SIGTERM, which batch systems send at the end of a job's time, is treated as Ctrl-C: temporary files
go, and reports of what was done are written.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mmpt.errors import EXIT_CODE, INTERRUPTED, UserError, message_of
from mmpt.utils.io import DISK_FULL, write_error
from mmpt.utils.log import setup_logging

TERMINATED = 128 + signal.SIGTERM

EXTRA_OF = {
    **dict.fromkeys(("av", "json_stream"), "prepare"),
    **dict.fromkeys(("faiss", "tensorboardX", "psutil"), "train"),
    **dict.fromkeys(("jinja2", "matplotlib", "PIL"), "report"),
}
"""Import name of a package that only some commands need -> the extra of `mmpt` that installs it."""


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM came; whoever cleans up after Ctrl-C cleans up after this."""


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
        _say(f"error: {message_of(err)}")
    except OSError as err:
        file = err.filename2 or err.filename  # filename2: the target of a failed rename
        if err.errno in DISK_FULL:
            _say(f"error: {write_error(err, file or 'a file')}")
        else:
            named = f"{file}: " if file else ""
            _say(f"error: {named}{err.strerror or err}. Fix that and run the same command again.")
    except ModuleNotFoundError as err:
        extra = EXTRA_OF.get(err.name or "")
        if extra is None:
            raise
        _say(f"error: {err.name} is not installed. Install it with: pip install 'mmpt[{extra}]'")
    except KeyboardInterrupt as err:
        _say(f"interrupted; {stopped}")
        return TERMINATED if isinstance(err, _TerminatedError) else INTERRUPTED
    return EXIT_CODE


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raise an interrupt where the main thread is when SIGTERM comes; only the main thread may ask
    for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError
