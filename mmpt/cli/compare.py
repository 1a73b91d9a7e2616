"""Shows runs side by side with what the papers report, one table per benchmark.

Rows of results files are grouped by the evaluation YAML that made them, so zero-shot and
fine-tuned stay apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mmpt.cli.app import Command
from mmpt.errors import DataError, LaunchError
from mmpt.evaluators import Results, read_results, render_markdown, render_table
from mmpt.evaluators.published import (
    METHODS,
    PUBLISHED,
    Benchmark,
    benchmark_key,
    comparability_notes,
    setting_of,
)
from mmpt.evaluators.table import first_distinct

RESULTS = "results.json"
PAPER = " (paper)"


@dataclass(frozen=True, kw_only=True)
class Group:
    """All runs on one benchmark in one setting."""

    key: str
    """Of the benchmark; empty for rows that do not say what they were scored on."""
    rows: dict[str, dict[str, Any]]
    """Name of the run -> its row."""

    @property
    def benchmark(self) -> Benchmark | None:
        """What is published."""
        return PUBLISHED.get(self.key)

    @property
    def title(self) -> str:
        """What was tested, and how."""
        if not self.key:
            return "not recorded which evaluation (scored by an older version)"
        described = [self.benchmark.title] if self.benchmark else []
        return f"{self.key}: " + ", ".join([*described, setting_of(self.key) or "setting unknown"])

    @property
    def columns(self) -> dict[str, Results]:
        """Chance, the runs, and the papers' numbers for the metrics that the runs have."""
        chance = {
            metric: numbers
            for row in self.rows.values()
            for metric, numbers in row.get("chance", {}).items()
        }
        columns: dict[str, Results] = {"chance": chance} if chance else {}
        columns |= {name: row["metrics"] for name, row in self.rows.items()}
        if self.benchmark:
            columns |= {
                method + PAPER: results for method, results in self.benchmark.papers.items()
            }
        return columns

    @property
    def notes(self) -> list[str]:
        """What to know before comparing."""
        notes = comparability_notes(self.benchmark, self.rows)
        return [*notes, *(self.benchmark.notes if self.benchmark else ())]


def read_runs(paths: Sequence[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Returns every row of the results files, with its file. A file named twice is read once.

    Args:
        paths: results files, or folders that hold one called results.json.
    Raises:
        DataError: no such file, or something else in it.
    """
    files = [Path(path) / RESULTS if Path(path).is_dir() else Path(path) for path in paths]
    for path, file in zip(paths, files, strict=True):
        if not file.is_file():
            found = (
                f"it has no {RESULTS}" if Path(path).is_dir() else "there is no such file or folder"
            )
            raise DataError(
                f"{path}: must be a results file or a folder with a {RESULTS} (`eval.save_path` of "
                f"a YAML that was scored), but {found}."
            )
    runs = [
        (file, row)
        for file in {file.resolve(): file for file in files}.values()
        for row in read_results(file)
    ]
    for file, row in runs:
        if not _is_sound(row):
            raise DataError(
                f"{file}: not a results file (a row of it has no numbers by metric). Score again."
            )
    if not runs:
        raise DataError(
            f"{', '.join(map(str, files))}: holds no results. Score a checkpoint first."
        )
    return runs


def _is_sound(row: dict[str, Any]) -> bool:
    """Say whether a row has a checkpoint's path, and numbers by metric."""
    return (
        isinstance(row["checkpoint"], str)
        and isinstance(row.get("task", ""), str)
        and all(_are_results(row.get(key, {})) for key in ("metrics", "chance"))
    )


def _are_results(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(numbers, dict)
        and all(isinstance(number, int | float) for number in numbers.values())
        for numbers in value.values()
    )


def group_runs(runs: Sequence[tuple[Path, dict[str, Any]]]) -> list[Group]:
    """Groups rows by benchmark and setting, in the order of `PUBLISHED`, then of the rows."""
    by_key: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for file, row in runs:
        by_key.setdefault(benchmark_key(row["task"]) if row.get("task") else "", []).append(
            (file, row)
        )
    order = [
        *(key for key in PUBLISHED if key in by_key),
        *(key for key in by_key if key not in PUBLISHED),
    ]
    return [
        Group(
            key=key, rows=dict(zip(_names(by_key[key]), (r for _, r in by_key[key]), strict=True))
        )
        for key in order
    ]


def _names(runs: Sequence[tuple[Path, dict[str, Any]]]) -> list[str]:
    """Returns the shortest kind of name that tells the rows apart."""
    checkpoints = [Path(row["checkpoint"]) for _, row in runs]
    return first_distinct(
        [path.parent.name for path in checkpoints],
        [path.stem for path in checkpoints],
        [f"{path.parent.name}/{path.stem}" for path in checkpoints],
        [str(path) for path in checkpoints],
        [f"{path} in {file.parent}" for path, (file, _) in zip(checkpoints, runs, strict=True)],
        [f"{number}. {path.parent.name}" for number, path in enumerate(checkpoints, start=1)],
    )


def as_text(groups: Sequence[Group], *, markdown: bool) -> str:
    """Return a heading, a table and notes per group."""
    parts = []
    for group in groups:
        table = (render_markdown if markdown else render_table)(group.columns)
        notes = "\n".join(f"{'- ' if markdown else ''}{note}" for note in group.notes)
        heading = f"## {group.title}" if markdown else group.title
        parts.append("\n\n".join(filter(None, (heading, table, notes))))
    return "\n\n".join(parts)


def as_json(groups: Sequence[Group]) -> str:
    """Return the same as JSON: shares are fractions, `published` by method."""
    value = [
        {
            "benchmark": group.key,
            "title": group.title,
            "setting": setting_of(group.key),
            "runs": {
                name: {k: v for k, v in row.items() if k != "settings"}
                for name, row in group.rows.items()
            },
            "published": {m: group.benchmark.results_of(m) for m in METHODS}
            if group.benchmark
            else {},
            "notes": group.notes,
        }
        for group in groups
    ]
    return json.dumps(value, ensure_ascii=False, indent=1)


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help=f"Folders with a {RESULTS}, or such files.")
    ],
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print tables as Markdown.")] = False,
    to_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show runs side by side with the numbers that the papers report, one table per benchmark."""
    if markdown and to_json:
        raise LaunchError("`--markdown` and `--json` exclude each other; give one of them.")
    groups = group_runs(read_runs(runs))
    print(as_json(groups) if to_json else as_text(groups, markdown=markdown))


main = Command(compare, stopped="run it again")


if __name__ == "__main__":
    sys.exit(main())
