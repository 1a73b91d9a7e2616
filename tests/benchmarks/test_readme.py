"""benchmarks/README.md shows only measured figures, and mentions every script."""

import json
import re

import pytest

import results
from tests.support.paths import ROOT

README = (ROOT / "benchmarks" / "README.md").read_text()
HELPERS = {
    "results",
    "process_memory",
    "full_size_data",
    "full_size_stream",
    "plain_parts",
    "job_commands",
}
SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - HELPERS
SOURCE = r"^Source: `(?P<command>.+)`, (?P<date>.+), (?P<commit>\S+)\n\n(?P<table>(?:\|.*\n)+)"


def recorded_cells(command: str, date: str, commit: str) -> list[tuple[str, str, str]]:
    """The medians of both sides, and the ratio with its range, of all figures of some runs."""
    cells = []
    for line in results.RESULTS.read_text().splitlines():
        run = json.loads(line)
        source = (run["command"], run["date"][:10], run["commit"])
        if source != (command, date, commit):
            continue
        for figure in run["figures"]:
            _, ours, plain, ratio, _ = results.cells(figure)
            our_median, _, _ = ours.partition(" (")
            plain_median, _, _ = plain.partition(" (")
            cells.append((our_median.strip(), plain_median.strip(), ratio.strip()))
    return cells


TABLES = list(re.finditer(SOURCE, README, re.MULTILINE))


@pytest.mark.parametrize("source", TABLES, ids=lambda match: match["command"])
def test_every_figure_was_recorded(source: re.Match[str]) -> None:
    recorded = recorded_cells(source["command"], source["date"], source["commit"])
    rows = source["table"].splitlines()[2:]
    assert rows
    for row in rows:
        _, ours, *others = [cell.strip() for cell in row.strip("|").split("|")]
        plain, ratio = others or ["", ""]
        assert (ours, plain, ratio) in recorded, row


def test_every_table_has_a_source() -> None:
    assert README.count("\n| quantity |") == len(TABLES) > 10


def test_every_script_is_run_by_make_bench_or_described_as_slow() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", makefile, re.MULTILINE)
    assert SCRIPTS - set(listed.split()) == {"learning", "whole_job"}
    for script in SCRIPTS:
        assert f"{script}.py" in README
