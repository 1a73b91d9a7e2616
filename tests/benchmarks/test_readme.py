"""benchmarks/README.md shows nothing that was not measured, and every script."""

import json
import re

import results
from tests.support.paths import ROOT

README = ROOT / "benchmarks" / "README.md"
HELPERS = {"results", "process_memory", "full_size_data", "plain_parts"}
SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - HELPERS


def test_every_figure_was_recorded() -> None:
    recorded = [
        row
        for line in results.RESULTS.read_text().splitlines()
        for row in results.rows(json.loads(line))
    ]
    table = README.read_text().partition("| command, date, commit |")[2]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert rows
    assert not [row for row in rows if row not in recorded]


def test_every_script_is_run_by_make_bench_or_named_with_the_reason() -> None:
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert SCRIPTS - set(listed.split()) == {"learning", "whole_job"}
    assert all(f"{script}.py" in README.read_text() for script in SCRIPTS)
