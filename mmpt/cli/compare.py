"""Shows runs side by side with what the papers report, one table per benchmark.

Rows of results files are grouped by the evaluation YAML that made them, so zero-shot and
fine-tuned stay apart.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from typer import Argument, Option

from mmpt.cli.app import Command
from mmpt.errors import DataError, LaunchError
from mmpt.evaluators import published, read_results, render_markdown, render_table
from mmpt.evaluators.table import first_distinct
from mmpt.utils.validation import validate

RESULTS = "results.json"

Results = dict[str, dict[str, float]]


class _Row(BaseModel):
    """What is read of a row."""

    checkpoint: str
    task: str = ""
    metrics: Results
    chance: Results = {}


def _read_rows(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Returns every row of the results files. A file named twice is read once.

    Args:
        paths: results files, or folders that hold one called results.json.
    Raises:
        DataError: no such file, or something else in it.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        file, found = Path(path), "there is no such file or folder"
        if file.is_dir():
            file, found = file / RESULTS, f"it has no {RESULTS}"
        if not file.is_file():
            raise DataError(
                f"{path}: must be a results file or a folder with a {RESULTS} (`eval.save_path` of "
                f"a YAML that was scored), but {found}."
            )
        files[file.resolve()] = file
    rows: list[dict[str, Any]] = []
    for file in files.values():
        rows += read_results(file)
        validate(list[_Row], rows, file, "This is not a results file. Score again.")
    if not rows:
        raise DataError(f"{', '.join(paths)}: holds no results. Score a checkpoint first.")
    return rows


def _names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the shortest kind of name that tells the rows apart."""
    checkpoints = [Path(row["checkpoint"]) for row in rows]
    return first_distinct(
        [path.parent.name for path in checkpoints],
        [path.stem for path in checkpoints],
        [f"{path.parent.name}/{path.stem}" for path in checkpoints],
        [str(path) for path in checkpoints],
        [f"{number}. {path.parent.name}" for number, path in enumerate(checkpoints, start=1)],
    )


def _describe(key: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns all runs on one benchmark in one setting as `--json` prints them.

    Args:
        key: of the benchmark; empty for rows that do not say what they were scored on.
        rows: name of the run -> its row.
    """
    benchmark = published.PUBLISHED.get(key)
    setting = published.setting_of(key)
    title = "not recorded which evaluation (scored by an older version)"
    if key:
        described = [benchmark.title] if benchmark else []
        title = f"{key}: " + ", ".join([*described, setting or "setting unknown"])
    for row in rows.values():
        row.pop("settings", None)  # long
    papers = {m: benchmark.results_of(m) for m in published.METHODS} if benchmark else {}
    notes = published.comparability_notes(benchmark, rows)
    return {
        "benchmark": key,
        "title": title,
        "setting": setting,
        "runs": rows,
        "published": papers,
        "notes": [*notes, *(benchmark.notes if benchmark else ())],
    }


def _as_text(group: dict[str, Any], *, markdown: bool) -> str:
    """Returns a heading, a table and notes.

    The table has chance, the runs, and the numbers of every paper that reports any.
    """
    rows = group["runs"]
    columns: dict[str, Results] = {}
    for row in rows.values():
        if chance := row.get("chance"):
            columns["chance"] = columns.get("chance", {}) | chance
    columns |= {name: row["metrics"] for name, row in rows.items()}
    for method, results in group["published"].items():
        if any(results.values()):
            columns[f"{method} (paper)"] = results
    title, table, mark = group["title"], render_table(columns), ""
    if markdown:
        title, table, mark = f"## {title}", render_markdown(columns), "- "
    notes = "\n".join(mark + note for note in group["notes"])
    return "\n\n".join(filter(None, (title, table, notes)))


def compare(
    runs: Annotated[
        list[str], Argument(metavar="RUN", help=f"Folders with a {RESULTS}, or such files.")
    ],
    *,
    markdown: Annotated[bool, Option("--markdown", help="Print tables as Markdown.")] = False,
    to_json: Annotated[bool, Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show runs side by side with the numbers that the papers report, one table per benchmark."""
    if markdown and to_json:
        raise LaunchError("`--markdown` and `--json` exclude each other; give one of them.")
    by_key: dict[str, list[Any]] = {key: [] for key in published.PUBLISHED}  # in this order
    for row in _read_rows(runs):
        key = published.benchmark_key(row["task"]) if row.get("task") else ""
        by_key.setdefault(key, []).append(row)
    groups = [
        _describe(key, dict(zip(_names(rows), rows, strict=True)))
        for key, rows in by_key.items()
        if rows
    ]
    if to_json:
        print(json.dumps(groups, ensure_ascii=False, indent=1))
    else:
        print("\n\n".join(_as_text(group, markdown=markdown) for group in groups))


main = Command(compare, stopped="run it again")


if __name__ == "__main__":
    sys.exit(main())
