"""Measures, prints and records the figures of benchmarks.

    python benchmarks/results.py    # prints the last figures of every benchmark

A figure has a value per round for our implementation and, usually, for a plain one. It is printed
as median, range and ratio. Every run is appended to benchmarks/results.jsonl, one run per line:
date, machine, commit, command and figures.

A ratio is plain / ours, computed round by round, because the speed of a machine may drift from one
round to the next. The table shows the median of the ratios.
"""

import argparse
import json
import logging
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch

from mmpt.utils.command import run_command

Result = TypeVar("Result")
Number = TypeVar("Number", int, float)
ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds `mmpt/` and `projects/`."""
RESULTS = ROOT / "benchmarks/results.jsonl"
WRITTEN = (
    "benchmarks/results.jsonl",
    "benchmarks/README.md",
    "experiments/results.jsonl",
)
"""Files to which benchmarks and experiments write, relative to the root."""


@dataclass(frozen=True)
class Figure:
    """A quantity that was measured in rounds, for our implementation and for a plain one."""

    what: str
    """The name of the quantity."""
    unit: str
    ours: Sequence[float]
    """Our values, one per round."""
    plain: Sequence[float] = ()
    """The values of the plain implementation, one per round; empty if there is none."""
    note: str = ""
    """A remark that belongs to the figure, such as how closely the results agree."""

    @property
    def ratios(self) -> list[float]:
        """The factor by which ours is better, in each round.

        It is plain / ours for a time or a size, and ours / plain for a rate (a unit that ends in
        `/s`). There are no ratios for percentages, without plain values, and if a value is 0.
        """
        if not self.plain or self.unit == "%" or 0 in (*self.ours, *self.plain):
            return []
        is_rate = self.unit.endswith("/s")
        ratios = []
        for ours, plain in zip(self.ours, self.plain, strict=True):
            ratio = ours / plain if is_rate else plain / ours
            ratios.append(ratio)
        return ratios


# ---- command lines


def at_least(least: Number) -> Callable[[str], Number]:
    """Returns a `type` for argparse: a number of the type of `least` that is not below it."""

    # argparse puts the name of this function into its message about text that is not a number.
    def number(text: str) -> Number:
        value = type(least)(text)
        if not value >= least:  # also true for NaN
            raise argparse.ArgumentTypeError(f"must be at least {least}, but is {text}")
        return value

    return number


class Options(argparse.ArgumentParser):
    """The command line of a benchmark. The docstring of the script is the help text.

    Every benchmark has the option `--out`, the file that `record` appends to.
    """

    def __init__(self, description: str | None):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument(
            "--out", type=Path, default=RESULTS, help="file to append the run to"
        )

    def number(
        self, name: str, default: Any, help: str = "", *, least: float = 1
    ) -> None:
        """Adds an option that takes a number of at least `least`."""
        self.add_argument(name, type=at_least(least), default=default, help=help)


def run_script(main: Callable[[], None]) -> None:
    """Runs a benchmark and ends the process like a command of the project.

    A mistake of the user ends it with one message and exit code 2.
    """
    # Show warnings only. The logging of run_command would also show progress.
    logging.basicConfig(format="%(message)s")
    sys.exit(run_command(main, interrupt_message="nothing was recorded"))


# ---- measuring


def timed(function: Callable[..., Result], *args: Any) -> tuple[float, Result]:
    """Returns the wall-clock seconds of `function(*args)`, and its result."""
    begin = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - begin, result


def rates(amount: float, seconds: Sequence[float]) -> list[float]:
    """Returns the rate of every round: `amount` divided by its seconds."""
    return [amount / each for each in seconds]


def time_in_turns(
    rounds: int,
    *sides: Callable[[int], Any],
    check: Callable[..., None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Returns the seconds that each side takes in each round.

    In a round, all sides run one after the other, so that a change of the machine's speed affects
    all of them. An additional first round warms up and is not counted.

    Args:
        rounds: number of rounds that are counted.
        sides: functions of the number of the round, which is 0 for the warm-up.
        check: called with the results of all sides after every round.
        clock: returns the current time in seconds.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        results = []
        for side, taken in zip(sides, seconds, strict=True):
            begin = clock()
            result = side(number)
            taken.append(clock() - begin)
            results.append(result)
        if check:
            check(*results)
    return [taken[1:] for taken in seconds]


# ---- recording


def record(figures: Sequence[Figure], out: Path) -> None:
    """Prints the figures as a table and appends the run to `out`."""
    assert all(figure.ours for figure in figures), "a figure has no values"
    script = Path(sys.argv[0]).name
    run = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "commit": commit(),
        "command": " ".join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "figures": [asdict(figure) for figure in figures],
    }
    line = json.dumps(run)
    print(table([line]))
    with out.open("a") as file:
        file.write(line + "\n")


def machine() -> str:
    """Returns the processor and its cores, the GPU if there is one, and Python and torch."""
    processor = platform.machine()
    if sys.platform == "linux":
        cpu_info = Path("/proc/cpuinfo").read_text()
        if found := re.search(r"^model name\s*:\s*(.*)$", cpu_info, re.M):
            processor = found[1]
    parts = [processor, f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    parts.append(f"Python {platform.python_version()}")
    parts.append(f"torch {torch.__version__}")
    return ", ".join(parts)


def commit() -> str:
    """Returns the current commit, with a `+` if files other than results differ from it."""
    number = git("rev-parse", "--short", "HEAD")
    ignored = [f":(top,exclude){path}" for path in WRITTEN]
    if git("status", "--porcelain", "--untracked-files=no", "--", ":/", *ignored):
        number += "+"
    return number


def git(*args: str) -> str:
    """Returns the output of a git command in this folder, or an empty text without a repository."""
    done = subprocess.run(
        ["git", *args],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


# ---- tables


def table(lines: Sequence[str]) -> str:
    """Returns a Markdown table of the last run of every command, in the order of the first runs.

    Args:
        lines: lines of the results file.
    """
    last = {}
    for line in lines:
        run = json.loads(line)
        last[run["command"]] = run
    text = [
        "| command, date, commit | what | ours | plain | ratio | |",
        "|---|---|---|---|---|---|",
    ]
    for run in last.values():
        text += rows(run)
    return "\n".join(text)


def rows(run: dict[str, Any]) -> list[str]:
    """Returns a row per figure of a run. The first row also names the command."""
    source = f"`{run['command']}`, {run['date'][:10]}, {run['commit']}"
    found = []
    for figure in run["figures"]:
        row = " | ".join([source, *cells(figure)])
        found.append(f"| {row} |")
        source = ""
    return found


def cells(figure: dict[str, Any]) -> list[str]:
    """Returns name, ours, plain, ratio and note of a figure as text."""
    ratios = Figure(**figure).ratios
    unit = figure["unit"]
    return [
        figure["what"],
        spread(figure["ours"], unit),
        spread(figure["plain"], unit),
        spread(ratios, "times"),
        figure["note"],
    ]


def spread(values: Sequence[float], unit: str) -> str:
    """Returns median and range as text, such as `2.00 s (1.90 to 2.10)`."""
    if not values:
        return ""
    median = significant(statistics.median(values))
    if len(values) == 1:
        return f"{median} {unit}"
    low = significant(min(values))
    high = significant(max(values))
    return f"{median} {unit} ({low} to {high})"


def significant(value: float) -> str:
    """Returns a number with three significant digits, without an exponent.

    Numbers of four and more digits are only rounded to whole numbers.
    """
    digits = 0
    if value:
        exponent = math.floor(math.log10(abs(value)))
        digits = max(0, 2 - exponent)
    return f"{value:,.{digits}f}"


if __name__ == "__main__":
    print(table(RESULTS.read_text().splitlines()))
