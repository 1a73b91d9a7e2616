"""Rows of results files as tables, one per benchmark, next to the numbers of the papers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.evaluators import (
    Results,
    published,
    read_results,
    render_markdown,
    render_table,
)
from mmpt.evaluators.table import checkpoint_names

RESULTS = "results.json"
Row = dict[str, Any]
"""A row of a results file."""
Group = dict[str, Any]
"""A benchmark in one setting, with its runs, as `--json` prints it."""


def read_rows(paths: Sequence[str], *, may_be_empty: bool = False) -> list[Row]:
    """Returns all rows of the results files. A file that is named twice is read once.

    Args:
        paths: results files, or folders that contain a file called results.json.
        may_be_empty: accept that there are no rows.
    Raises:
        DataError: a file does not exist or is not a results file, or there are no rows and
            `may_be_empty` is False.
    """
    files: dict[Path, Path] = {}  # resolved path -> path as the user wrote it
    for path in paths:
        file = Path(path)
        if file.is_dir():
            file /= RESULTS
        if not file.is_file():
            raise DataError(
                f"{file}: no such file. Name results files, folders that contain one "
                "(`eval.save_path` of a YAML that was scored), or training folders "
                "(`fairseq.checkpoint.save_dir`)."
            )
        files[file.resolve()] = file
    rows: list[Row] = []
    for file in files.values():
        rows += read_results(file)
    if not rows and not may_be_empty:
        raise DataError(
            f"{', '.join(paths)}: holds no results. Score a checkpoint first."
        )
    return rows


def group_rows(rows: Iterable[Row]) -> list[Group]:
    """Returns a group per benchmark and setting. Benchmarks with published numbers come first."""
    by_key: dict[str, list[Row]] = {key: [] for key in published.published_benchmarks()}
    for row in rows:
        key = published.benchmark_key(row.get("task", "not recorded"))
        by_key.setdefault(key, []).append(row)
    return [_describe(key, group) for key, group in by_key.items() if group]


def _describe(key: str, rows: Sequence[Row]) -> Group:
    """Returns one benchmark with its runs, published numbers and notes.

    Args:
        key: key of the benchmark in `published_benchmarks`, or any other name of an evaluation.
        rows: the rows of the results files that belong to it.
    """
    benchmark = published.published_benchmarks().get(key)
    setting = published.setting_of(key)
    description = setting or "setting unknown"
    names = checkpoint_names([Path(row["checkpoint"]) for row in rows])
    runs = dict(zip(names, rows, strict=True))
    for row in rows:
        row.pop("settings", None)  # the whole config, too long to print
    notes = published.comparability_notes(benchmark, runs)
    papers: Mapping[str, Results] = {}
    if benchmark:
        description = f"{benchmark.title}, {description}"
        notes += benchmark.notes
        papers = benchmark.papers
    return {
        "benchmark": key,
        "title": f"{key}: {description}",
        "setting": setting,
        "runs": runs,
        "published": papers,
        "notes": notes,
    }


def columns_of(group: Group) -> dict[str, Results]:
    """Returns the columns of a table: chance, then the runs, then the papers."""
    runs = group["runs"]
    columns: dict[str, Results] = {}
    for row in runs.values():
        chance = row.get("chance")
        if chance:
            columns["chance"] = columns.get("chance", {}) | chance
    for name, row in runs.items():
        columns[name] = row["metrics"]
    for method, results in group["published"].items():
        columns[f"{method} (paper)"] = results
    return columns


def as_text(group: Group, *, markdown: bool) -> str:
    """Returns a heading, a table and notes about one benchmark."""
    columns = columns_of(group)
    if markdown:
        title = f"## {group['title']}"
        table = render_markdown(columns)
        notes = [f"- {note}" for note in group["notes"]]
    else:
        title = group["title"]
        table = render_table(columns)
        notes = group["notes"]
    paragraphs = [title, table]
    if notes:
        paragraphs.append("\n".join(notes))
    return "\n\n".join(paragraphs)
