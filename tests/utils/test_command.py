"""Exit codes and messages of commands, and cleaning up after signals."""

import os
import signal
import threading

import pytest

from mmpt.errors import DataError
from mmpt.utils.command import run_command


def raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "message"),
    [
        (lambda: None, 0, ""),
        (lambda: 2, 2, ""),
        (raising(DataError("x: broken.")), 2, "error: x: broken.\n"),
        (
            raising(OSError(28, "No space left on device", "/a/b")),
            2,
            "error: /a/b: cannot be written: the disk",
        ),
        (
            raising(OSError(21, "Is a directory", "/a/.b.tmp", None, "/a/b")),
            2,
            "error: /a/b: Is a directory. Fix",
        ),
        (
            raising(ModuleNotFoundError("No module named 'av'", name="av")),
            2,
            "error: av is not installed. Install it",
        ),
        (raising(KeyboardInterrupt()), 130, "interrupted; run it again\n"),
    ],
)
def test_exit_codes_and_messages(capsys, work, code, message):
    assert run_command(work, stopped="run it again") == code
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert bool(err) == bool(message)


def test_other_runtime_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="boom"):
        run_command(raising(RuntimeError("boom")), stopped="")


def test_sigterm_that_also_ends_loader_workers_is_an_interrupt(capsys):
    """The error of the loader may be raised while the interrupt is handled."""

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            raise RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Terminated. "
            )

    assert run_command(work, stopped="run it again") == 143
    assert capsys.readouterr().err == "interrupted; run it again\n"


def test_assertion_errors_keep_their_traceback():
    with pytest.raises(AssertionError):
        run_command(raising(AssertionError()), stopped="")


def test_sigterm_cleans_up_and_the_previous_handler_is_restored(capsys):
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            cleaned.append(True)

    assert run_command(work, stopped="run it again") == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == "interrupted; run it again\n"
    assert signal.getsignal(signal.SIGTERM) is before
