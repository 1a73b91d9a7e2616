"""The record of benchmarks: the printed table, and the line in the results file."""

import json
import sys
from pathlib import Path

import pytest

import results
from results import Figure, record


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["/somewhere/loss.py", "--clips", "16"])
    return tmp_path / "results.jsonl"


def test_a_run_is_printed_and_appended_with_its_source(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(
        [
            Figure(
                "step", "s", ours=[0.5, 0.25, 0.75], plain=[1.0, 1.0, 3.0], note="equal"
            )
        ],
        file,
    )
    record([Figure("rate", "items/s", ours=[3000.0], plain=[1500.0])], file)
    first, second = map(json.loads, file.read_text().splitlines())
    source = f"| `python benchmarks/loss.py --clips 16`, {first['date'][:10]}, {first['commit']} |"
    head = [
        "| command, date, commit | what | ours | plain | ratio | |",
        "|---|---|---|---|---|---|",
    ]
    step = "step | 0.500 s (0.250 to 0.750) | 1.00 s (1.00 to 3.00) | 4.00 times (2.00 to 4.00)"
    rate = "rate | 3,000 items/s | 1,500 items/s | 2.00 times"
    rows = [f"{source} {step} | equal |", f"{source} {rate} |  |"]
    assert capsys.readouterr().out.splitlines() == [*head, rows[0], *head, rows[1]]
    assert first["command"] == "python benchmarks/loss.py --clips 16"
    assert first["figures"][0]["plain"] == [1.0, 1.0, 3.0]
    assert {"date", "machine", "commit"} < set(second)


def test_the_table_shows_the_last_run_of_a_command(file: Path) -> None:
    record([Figure("peak", "MB", ours=[10.0])], file)
    record([Figure("peak", "MB", ours=[20.0])], file)
    *_, row = results.table(file.read_text().splitlines()).splitlines()
    assert "`python benchmarks/loss.py --clips 16`" in row
    assert "20.0 MB" in row
    assert "10.0 MB" not in row


def test_sides_of_different_lengths_are_an_error(file: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        record([Figure("step", "s", ours=[1.0, 2.0], plain=[1.0])], file)
    assert not file.exists()


def test_a_value_of_zero_has_no_ratio(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record([Figure("memory", "MB", ours=[0.0], plain=[3.0])], file)
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .endswith("| memory | 0 MB | 3.00 MB |  |  |")
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0211, "0.0211"), (1234567.8, "1,234,568"), (0.0, "0"), (9.996, "10.00")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert results.significant(value) == text
