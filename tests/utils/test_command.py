"""Exit codes and messages of commands, and cleaning up after signals."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from mmpt.errors import DataError
from mmpt.utils.command import run_command
from tests.support.paths import ROOT


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
    assert run_command(work, interrupt_message="run it again") == code
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert bool(err) == bool(message)


def test_other_runtime_errors_keep_their_traceback():
    with pytest.raises(RuntimeError, match="boom"):
        run_command(raising(RuntimeError("boom")), interrupt_message="")


def test_sigterm_is_an_interrupt_even_if_it_also_ends_loader_workers(capsys):
    """The error of the loader may be raised while the interrupt is handled."""

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(60)
        finally:
            raise RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Terminated. "
            )

    assert run_command(work, interrupt_message="run it again") == 143
    assert capsys.readouterr().err == "interrupted; run it again\n"


def test_assertion_errors_keep_their_traceback():
    with pytest.raises(AssertionError):
        run_command(raising(AssertionError()), interrupt_message="")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("stop_exit_code", [None, 75])
def test_a_signal_cleans_up_and_the_previous_handler_is_restored(
    capsys, signum, stop_exit_code
):
    before = signal.getsignal(signum)
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signum)
            threading.Event().wait(60)
        finally:
            cleaned.append(True)

    code = run_command(
        work, interrupt_message="run it again", stop_exit_code=stop_exit_code
    )
    assert code == (stop_exit_code or 128 + signum)
    assert cleaned == [True]
    assert capsys.readouterr().err == "interrupted; run it again\n"
    assert signal.getsignal(signum) is before


def test_a_signal_that_is_ignored_stays_ignored():
    """The tasks of a SLURM job ignore SIGUSR1 and SIGUSR2, and get SIGTERM instead."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert (
            run_command(
                lambda: os.kill(os.getpid(), signal.SIGUSR1), interrupt_message=""
            )
            == 0
        )
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.spawn
@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGUSR1])
def test_the_exit_code_is_kept_if_the_terminal_is_closed(signum):
    """Writing to the terminal would raise an error."""
    program = (
        "import os, sys; from mmpt.utils.command import run_command; "
        f"signal = lambda: os.kill(os.getpid(), {int(signum)}); "
        "sys.exit(run_command(signal, interrupt_message='run it again', stop_exit_code=75))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writer,
        stderr=writer,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 75
