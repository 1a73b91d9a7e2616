"""What a benchmark measured: printed as a table of median, spread and ratio, and appended to
benchmarks/results.jsonl.

    python benchmarks/results.py    # the last figures of every benchmark

A line of the file is one run: date, machine, commit, command, figures. A ratio is plain / ours,
taken round by round, so that it holds when the machine's speed drifts; its median is quoted.
"""

import argparse
import json
import logging
import math
import os
import platform
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
RESULTS = Path(__file__).with_name("results.jsonl")


@dataclass(frozen=True)
class Figure:
    """One quantity, measured in rounds on our side and, in turns with it, on a plain
    implementation.
    """

    what: str
    unit: str
    ours: Sequence[float]
    plain: Sequence[float] = ()
    """Values of the other side, round by round; empty when there is none."""
    note: str = ""
    """What the figure is to be read with: agreement of the results, what bounds it."""

    @property
    def ratios(self) -> list[float]:
        """How many times more the plain side takes (of a rate, `.../s`: gives less) in each round.

        There are none of shares, nor of what was too little to be measured.
        """
        if self.unit == "%" or 0 in (*self.ours, *self.plain):
            return []
        pairs = list(zip(self.ours, self.plain, strict=True)) if self.plain else []
        return [ours / plain if self.unit.endswith("/s") else plain / ours for ours, plain in pairs]


def at_least(least: Number) -> Callable[[str], Number]:
    """Return a `type` of an option: a number of the kind of `least`, and not below it."""

    def number(text: str) -> Number:  # argparse calls it by this name when there is none
        value = type(least)(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, but is {text}")
        return value

    return number


class Options(argparse.ArgumentParser):
    """The command line of a script, whose docstring is its help."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def number(self, name: str, default: Any, help: str = "", *, least: float = 1) -> None:
        """Add an option that takes a number of at least `least`."""
        self.add_argument(name, type=at_least(least), default=default, help=help)


def run_script(main: Callable[[], None]) -> None:
    """End a script as the project's commands end: what the user can fix is one message and exit
    code 2.
    """
    # Warnings, as without it; run_command would show progress too.
    logging.basicConfig(format="%(message)s")
    sys.exit(run_command(main, stopped="nothing was recorded"))


def timed(function: Callable[..., Result], *args: Any) -> tuple[float, Result]:
    """Return the wall-clock seconds of `function(*args)`, and its result."""
    begin = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - begin, result


def in_turns(
    rounds: int,
    *sides: Callable[[int], Any],
    check: Callable[..., None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Return the seconds that each side takes in each round, after a first one that warms up.

    Args:
        rounds: how many are counted.
        sides: called one after the other with the number of the round, 0 for the first.
        check: called with the results of all sides in every round.
        clock: what tells the seconds.
    """
    seconds: list[list[float]] = [[] for _ in sides]
    for number in range(rounds + 1):
        results = []
        for side, taken in zip(sides, seconds, strict=True):
            begin = clock()
            results.append(side(number))
            taken.append(clock() - begin)
        if check:
            check(*results)
    return [taken[1:] for taken in seconds]


def record(figures: Sequence[Figure], out: Path | None = None) -> None:
    """Print the figures as a table and append them to `out`, or else to the results file."""
    assert all(figure.ours for figure in figures), "nothing was measured of a figure"
    script = Path(sys.argv[0])
    run = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "commit": commit(),
        "command": " ".join(["python", f"benchmarks/{script.name}", *sys.argv[1:]]),
        "figures": [asdict(figure) for figure in figures],
    }
    line = json.dumps(run)
    print(table([line]))
    with (out or RESULTS).open("a") as file:
        file.write(line + "\n")


def machine() -> str:
    """Processor and cores, GPU if there is one, Python and torch."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores = f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores{gpu}"
    return f"{cores}, Python {platform.python_version()}, torch {torch.__version__}"


def commit() -> str:
    """The commit that was measured, with `+` when files differ from it."""
    folder = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(
            ["git", *args], cwd=folder, capture_output=True, text=True, check=False
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", ":!results.jsonl", ":!README.md")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def cells(figure: dict[str, Any]) -> list[str]:
    """What, ours, plain, ratio and note of a figure, as text."""
    ratios = Figure(**figure).ratios
    sides = [spread(figure[side], figure["unit"]) for side in ("ours", "plain")]
    return [figure["what"], *sides, spread(ratios, "times"), figure["note"]]


def spread(values: Sequence[float], unit: str) -> str:
    """Median and range, with three significant digits."""
    if not values:
        return ""
    median, low, high = (
        significant(value) for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} {unit}" + (f" ({low} to {high})" if len(values) > 1 else "")


def significant(value: float) -> str:
    """Three significant digits, without an exponent; whole numbers in full."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}"


def table(lines: Sequence[str]) -> str:
    """Return the last run of every command as rows of a Markdown table, in the order of their first
    runs.
    """
    last = {run["command"]: run for run in map(json.loads, lines)}
    head = [
        "| command, date, commit | what | ours | plain | ratio | |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join(head + [row for run in last.values() for row in rows(run)])


def rows(run: dict[str, Any]) -> list[str]:
    """Return a row for each figure of a run; the first says where they come from."""
    source = f"`{run['command']}`, {run['date'][:10]}, {run['commit']}"
    sources = [source] + [""] * (len(run["figures"]) - 1)
    figures = zip(sources, map(cells, run["figures"]), strict=True)
    return ["| " + " | ".join([first, *others]) + " |" for first, others in figures]


if __name__ == "__main__":
    print(table(RESULTS.read_text().splitlines()))
