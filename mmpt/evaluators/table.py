"""Results as a table for people: a number per row, a checkpoint per column, recalls in percent."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmpt.evaluators.base import METRICS, Number
from mmpt.utils.tables import GAP, text_table

ResultsLike = Mapping[str, Mapping[str, float]]
"""Metric class name -> number name -> value, as the evaluator returns it."""

MAX_WIDTH = 100
_MAX_NAME = 24


def render_table(columns: Mapping[str, ResultsLike]) -> str:
    """Returns an aligned table of at most `MAX_WIDTH` characters per line.

    Columns that do not fit go below.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
    """
    cells = _cells(columns)
    widest_title = max(len(row[0]) for row in cells)
    widest_cell = max(len(cell) for row in cells for cell in row[1:])
    per_block = max(1, (MAX_WIDTH - widest_title) // (widest_cell + GAP))
    blocks = []
    for first in range(1, len(cells[0]), per_block):
        header, *rows = [[row[0], *row[first : first + per_block]] for row in cells]
        blocks.append(text_table(header, rows))
    return "\n\n".join(blocks)


def render_markdown(columns: Mapping[str, ResultsLike]) -> str:
    """Returns a Markdown table with right-aligned numbers.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
    """
    header, *rows = _cells(columns)
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(row)} |".replace("\n", " ") for row in (header, rule, *rows)]
    return "\n".join(lines)


def _cells(columns: Mapping[str, ResultsLike]) -> list[list[str]]:
    """Returns header and rows as strings, without the rows that no column has."""
    assert columns, "a table needs a column"
    cells = [["", *map(_shorten, columns)]]
    metrics = dict.fromkeys(metric for results in columns.values() for metric in results)
    for metric in metrics:
        for number in numbers_of(metric, columns):
            values = [results.get(metric, {}).get(number.name) for results in columns.values()]
            if set(values) != {None}:
                cells.append([number.title, *(format_value(value, number) for value in values)])
    return cells


def checkpoint_names(paths: Sequence[Path]) -> list[str]:
    """Returns column titles: the shortest kind of name that differs for all checkpoints."""
    kinds = (
        [path.parent.name for path in paths],
        [path.stem for path in paths],
        [f"{path.parent.name}/{path.stem}" for path in paths],
        [str(path) for path in paths],
    )
    numbered = [f"{number}. {path.parent.name}" for number, path in enumerate(paths, start=1)]
    return next((names for names in kinds if len(set(names)) == len(names)), numbered)


def numbers_of(metric: str, columns: Mapping[str, ResultsLike]) -> Sequence[Number]:
    """Returns the numbers that a metric declares, or all that were measured if it is unknown."""
    if metric in METRICS:
        return METRICS.get(metric, "metric").numbers
    names = dict.fromkeys(name for results in columns.values() for name in results.get(metric, {}))
    return [Number(name, f"{metric} {name}") for name in names]


def format_value(value: float | None, number: Number) -> str:
    """Returns a share in percent, a rank as it is, and `-` for none."""
    if value is None:
        return "-"
    return f"{value:.1f}" if number.unit == "rank" else f"{100 * value:.1f}"


def _shorten(name: str) -> str:
    """Returns the end of a long name, because checkpoints differ there."""
    return name if len(name) <= _MAX_NAME else "…" + name[1 - _MAX_NAME :]
