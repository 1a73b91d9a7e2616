"""Results as a table for people: a number per row, a checkpoint per column, recalls in percent; text or markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ResultsLike = Mapping[str, Mapping[str, float]]
"""Metric class name -> number name -> value, as the evaluator returns it."""

MAX_WIDTH = 100
_MAX_NAME = 24
_MISSING = "-"


class _Row(NamedTuple):
    title: str
    metric: str
    name: str


def _recall_rows(title: str, metric: str, prefix: str) -> list[_Row]:
    return [_Row(f"{title}, R@{k}", metric, f"{prefix}R{k}") for k in (1, 5, 10)]


_ROWS: tuple[_Row, ...] = (
    *_recall_rows("clip, text to video", "RetrievalMetric", ""),
    _Row("clip, text to video, median rank", "RetrievalMetric", "MR"),
    *_recall_rows("clip, video to text", "RetrievalMetric", "v2t-"),
    _Row("clip, video to text, median rank", "RetrievalMetric", "v2t-MR"),
    *_recall_rows("full video, caption average", "FullVideoRetrievalMetric", ""),
    *_recall_rows("full video, DTW", "FullVideoRetrievalMetric", "DTW-"),
    *_recall_rows("full video, OTAM", "FullVideoRetrievalMetric", "OTAM-"),
)


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
        lines = [line[0].ljust(title_width) + "".join(f"  {line[c].rjust(widths[c])}" for c in block) for line in cells]
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
    return "\n".join("| " + " | ".join(line).replace("\n", " ") + " |" for line in (header, rule, *body))


def _cells(columns: Mapping[str, ResultsLike]) -> list[list[str]]:
    """Return header and rows as strings, without the rows that no column has."""
    assert columns, "a table needs a column"
    header = ["", *(_shorten(name) for name in columns)]
    body = [[row.title, *(_format(results, row) for results in columns.values())] for row in _ROWS]
    return [header, *(line for line in body if set(line[1:]) != {_MISSING})]


def _format(results: ResultsLike, row: _Row) -> str:
    value = results.get(row.metric, {}).get(row.name)
    if value is None:
        return _MISSING
    return f"{value:.1f}" if row.name.endswith("MR") else f"{100 * value:.1f}"


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
