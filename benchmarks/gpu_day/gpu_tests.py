"""The tests of the project that need a GPU, in several processes if the machine has the cores."""

import importlib.util
import os
from typing import Any

import pytest

from gpu_day.part import Report
from gpu_day.runner import ROOT

MAIN = "tests/e2e/test_gpu.py"
TIMEOUT_S = 150
"""Longest time of one test."""
MAX_PROCESSES = 6
MESSAGE_CHARACTERS = 3000
"""Characters of the end of a failure's traceback that are reported."""


class Recorder:
    """A pytest plugin that saves each result as soon as the test has ended."""

    def __init__(self, report: Report):
        self.report = report
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Counts a test after its call, and a failure or skip wherever it happens."""
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        self.report.add("tests", self.counts)
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration
        if report.failed:
            text = report.longreprtext[-MESSAGE_CHARACTERS:]
            self.report.errors[report.nodeid] = text
            self.report.add("tests", self.counts)

    def pytest_collectreport(self, report: Any) -> None:
        """Reports a file that cannot be imported."""
        if report.failed:
            text = report.longreprtext[-MESSAGE_CHARACTERS:]
            self.report.errors[f"import of {report.nodeid}"] = text


def test_files() -> list[str]:
    """Returns the files with tests for a GPU."""
    found = [MAIN]
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        name = path.relative_to(ROOT).as_posix()
        if "pytest.mark.gpu" in path.read_text():
            found += [] if name == MAIN else [name]
    return found


def run_tests(report: Report) -> None:
    """Runs the tests marked `gpu`, and the tests of `MAIN` that compare the CPU with float64."""
    recorder = Recorder(report)
    options = ["-m", "gpu or e2e", "-p", "no:cacheprovider", "--durations=10"]
    if importlib.util.find_spec("pytest_timeout"):
        options.append(f"--timeout={TIMEOUT_S}")
    num_processes = min(MAX_PROCESSES, (os.cpu_count() or 1) // 2)
    if importlib.util.find_spec("xdist") and num_processes > 1:
        options += ["-n", str(num_processes), "--dist", "load"]
        # Otherwise each process takes all cores. torch has not been imported yet.
        os.environ["OMP_NUM_THREADS"] = "2"
        os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "2"
    code = pytest.main([*options, *test_files()], plugins=[recorder])
    slowest = sorted(recorder.seconds, key=lambda name: -recorder.seconds[name])[:10]
    report.add("tests, slowest: s", {name: recorder.seconds[name] for name in slowest})
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), code
