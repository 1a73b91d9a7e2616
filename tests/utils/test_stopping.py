"""Signals that ask a process to stop, in separate processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.spawn

PROGRAM = """
import ctypes, multiprocessing, os, signal, sys, threading, time
from mmpt.utils.stopping import StopRequest

if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop = StopRequest(["SIGTERM", "SIGUSR1", "SIGHUP"])
stop.listen()
# Two workers that `multiprocessing` knows, and one that it does not know.
start = multiprocessing.get_context("fork").Process
for _ in range(2):
    start(target=time.sleep, args=(60,)).start()
child = os.fork()
if child == 0:
    time.sleep(60)
    os._exit(0)
def fork_often():
    while True:
        if os.fork() == 0:
            time.sleep(60)
        time.sleep(0.001)
if "forking" in sys.argv:
    threading.Thread(target=fork_often, daemon=True).start()
print(child, flush=True)
if "saving" in sys.argv:
    stop.save_first()
if "busy" in sys.argv:  # in an operation that Python's handlers wait for
    ctypes.CDLL(None).sleep(60)
while not stop:
    time.sleep(0.01)
time.sleep(0.3)
os.kill(child, 0)  # alive
stop.end("saved")
"""


def has_members(group: int) -> bool:
    """Returns whether a process group has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run(
    *signals: signal.Signals, args: tuple[str, ...] = (), pause_s: float = 0.2
) -> tuple:
    """Returns exit code, message and waiting time of the program after signals to its group."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *args],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    program.stdout.readline()
    time.sleep(0.1)
    for number in signals:
        os.killpg(program.pid, number)
        time.sleep(pause_s)
    begin = time.monotonic()
    try:
        code = program.wait(timeout=20)
        took_s = time.monotonic() - begin
        while has_members(program.pid):  # no worker must be left
            assert time.monotonic() - begin < 20
            time.sleep(0.01)
        assert program.stderr is not None
        return code, program.stderr.readline(), took_s
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # if the test fails
        program.communicate()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)],
)
def test_a_process_saves_before_it_ends_and_its_child_runs_until_then(number, code):
    found, message, _ = run(number, args=("saving",))
    assert found == code
    assert message == f"stopped by {number.name}: saved\n"


def test_a_signal_that_is_not_handled_has_its_default_effect():
    assert run(signal.SIGUSR2)[0] == -signal.SIGUSR2


def test_a_closed_terminal_has_no_effect_under_nohup():
    code, message, _ = run(signal.SIGHUP, signal.SIGTERM, args=("saving", "nohup"))
    assert (code, message) == (75, "stopped by SIGTERM: saved\n")


@pytest.mark.parametrize("args", [(), ("busy",), ("forking",)])
def test_a_process_without_anything_to_save_ends_at_once(args):
    code, message, waited_s = run(signal.SIGTERM, args=args)
    assert (code, "nothing is lost" in message) == (75, True)
    assert waited_s < 1


def test_a_second_interrupt_ends_at_once_but_a_second_sigterm_does_not():
    code, message, _ = run(signal.SIGINT, signal.SIGINT, args=("saving",), pause_s=0.1)
    assert (code, "are repeated" in message) == (130, True)
    code, message, _ = run(
        signal.SIGTERM, signal.SIGTERM, args=("saving",), pause_s=0.1
    )
    assert (code, "saved" in message) == (75, True)
