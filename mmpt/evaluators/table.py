"""Results as a table for people: a number per row, a checkpoint per column, recalls in percent; text or markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmpt.evaluators.base import METRICS, Number

ResultsLike = Mapping[str, Mapping[str, float]]
"""Metric class name -> number name -> value, as the evaluator returns it."""

MAX_WIDTH = 100
_MAX_NAME = 24
_MISSING = "-"


def render_table(columns: Mapping[str, ResultsLike]) -> str:
    """Return an aligned table of at most `MAX_WIDTH` characters per line; columns that do not fit go below.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
    """
    cells = _cells(columns)
    title_width = max(len(line[0]) for line in cells)
    widths = [max(len(line[c]) for line in cells) for c in range(len(cells[0]))]
    blocks = []
    for block in _blocks(widths[1:], MAX_WIDTH - title_width):
        lines = [
            line[0].ljust(title_width) + "".join(f"  {line[c].rjust(widths[c])}" for c in block)
            for line in cells
        ]
        lines.insert(1, "-" * len(lines[0]))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def render_markdown(columns: Mapping[str, ResultsLike]) -> str:
    """Return the same as a markdown table with right-aligned numbers.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
    """
    header, *body = _cells(columns)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(
        "| " + " | ".join(line).replace("\n", " ") + " |" for line in (header, rule, *body)
    )


def _cells(columns: Mapping[str, ResultsLike]) -> list[list[str]]:
    """Return header and rows as strings, without the rows that no column has."""
    assert columns, "a table needs a column"
    header = ["", *(_shorten(name) for name in columns)]
    metrics = dict.fromkeys(metric for results in columns.values() for metric in results)
    body = [
        [
            number.title,
            *(
                format_value(results.get(metric, {}).get(number.name), number)
                for results in columns.values()
            ),
        ]
        for metric in metrics
        for number in numbers_of(metric, columns)
    ]
    return [header, *(line for line in body if set(line[1:]) != {_MISSING})]


def first_distinct(*kinds: list[str]) -> list[str]:
    """Return the first list of names in which no name occurs twice, to title columns with; the last one if all do."""
    return next((names for names in kinds if len(set(names)) == len(names)), kinds[-1])


def numbers_of(metric: str, columns: Mapping[str, ResultsLike]) -> Sequence[Number]:
    """Return what a metric declares, or all that was measured for a class that is not one of ours."""
    if metric in METRICS:
        return METRICS.get(metric, "metric").numbers
    names = dict.fromkeys(name for results in columns.values() for name in results.get(metric, {}))
    return [Number(name, f"{metric} {name}") for name in names]


def format_value(value: float | None, number: Number) -> str:
    """Return a share in percent, a rank as it is, and `-` for none."""
    if value is None:
        return _MISSING
    return f"{value:.1f}" if number.unit == "rank" else f"{100 * value:.1f}"


def _shorten(name: str) -> str:
    """Keep the end of a long name, where checkpoints differ."""
    return name if len(name) <= _MAX_NAME else "…" + name[1 - _MAX_NAME :]


def _blocks(widths: list[int], room: int) -> list[list[int]]:
    """Return column numbers (from 1) in groups whose widths, each with 2 for the gap, fit into `room`."""
    blocks: list[list[int]] = [[]]
    used = 0
    for c, width in enumerate(widths, start=1):
        if blocks[-1] and used + width + 2 > room:
            blocks.append([])
            used = 0
        blocks[-1].append(c)
        used += width + 2
    return blocks
