"""Commands of the project in forks of a server, which has imported the project once.

The imports take longer than training on the small corpus. Tests of the start of commands use
`subprocess` instead.
"""

import atexit
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests.support.namespaces import enter_host
from tests.support.paths import ROOT

PRELOADED = [
    *("pytest", "mmpt.cli.launch", "mmpt.cli.predict", "mmpt.cli.processes"),
    *("mmpt.tasks.fairseqmmtask", "mmpt.losses.nce", "mmpt.models.mmfusion"),
    *("mmpt.retrieval.faiss_index", "mmpt.processors.how2", "mmpt.train"),
]
"""Modules whose import takes seconds; torch is one of them."""


def server() -> ForkServerContext:
    """Returns the context whose processes are forked from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class Forked:
    """A command in a fork of the server.

    It has the methods of `subprocess.Popen` that the tests use.

    Args:
        entry: `module:function`. The function is called with the arguments.
        arguments: the command line without the name of the program.
        env: variables to set, in addition to the current ones.
        host: one of `two_hosts`. Default: this machine.
        cwd: the current folder of the command.
    """

    def __init__(
        self,
        entry: str,
        arguments: Sequence[object],
        env: Mapping[str, str] | None = None,
        host: str | None = None,
        cwd: Path = ROOT,
    ):
        self._folder = tempfile.TemporaryDirectory()
        self._logs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        words = [str(word) for word in arguments]
        self._process = server().Process(
            target=_call,
            args=(entry, words, {**os.environ, **(env or {})}, self._logs, host, cwd),
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None before the end. It is -N if signal N ended the process."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, if it has not ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process and its children that have not left its process group."""
        if self.returncode is None:
            os.killpg(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end, and returns the output of the command on stdout and stderr.

        Raises:
            subprocess.TimeoutExpired: it has not ended after `timeout` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
        out, err = (log.read_text(errors="replace") for log in self._logs)
        return out, err


def run_forked(
    entry: str,
    arguments: Sequence[object],
    *,
    timeout_s: float = 300,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end in a folder, as `subprocess.run` does."""
    command = Forked(entry, arguments, env, cwd=cwd)
    try:
        out, err = command.communicate(timeout_s)
    finally:
        command.kill()
    assert command.returncode is not None
    return subprocess.CompletedProcess([entry], command.returncode, out, err)


def _call(
    entry: str,
    arguments: list[str],
    env: dict[str, str],
    logs: Sequence[Path],
    host: str | None,
    cwd: Path,
) -> None:
    """Calls a function with the arguments in this process, and exits with its result."""
    os.setsid()
    if host is not None:
        enter_host(host)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None  # the server may have read TMPDIR
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    try:
        sys.exit(pkgutil.resolve_name(entry)(arguments))
    finally:
        atexit._run_exitfuncs()
