"""Results as a table for people: a number per row, a checkpoint per column, recalls in percent."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmpt.evaluators.base import METRICS, MetricValue
from mmpt.utils.tables import GAP, markdown_table, text_table

ResultsLike = Mapping[str, Mapping[str, float]]
"""Metric class name -> number name -> value, as the evaluator returns it."""

MAX_WIDTH = 100
_MAX_NAME = 24


def render_table(columns: Mapping[str, ResultsLike], *, is_short: bool = False) -> str:
    """Returns an aligned table of at most `MAX_WIDTH` characters per line.

    Columns that do not fit go below.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
        is_short: leave out details (`Number.is_detail`).
    """
    rows = table_rows(columns, is_short=is_short)
    widths = []
    for cells in zip(*rows, strict=True):  # column by column
        widths.append(max(map(len, cells)))
    title_width, *value_widths = widths
    cell_width = max(value_widths) + GAP
    columns_per_block = max(1, (MAX_WIDTH - title_width) // cell_width)
    blocks = []
    for first in range(0, len(columns), columns_per_block):
        shown = slice(first, first + columns_per_block)
        block = []
        for title, *values in rows:
            block.append([title, *values[shown]])
        header, *body = block
        blocks.append(text_table(header, body))
    return "\n\n".join(blocks)


def render_markdown(
    columns: Mapping[str, ResultsLike], *, is_short: bool = False
) -> str:
    """Returns a Markdown table with right-aligned numbers.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
        is_short: leave out details (`Number.is_detail`).
    """
    header, *body = table_rows(columns, is_short=is_short)
    return markdown_table(header, body)


def table_rows(
    columns: Mapping[str, ResultsLike], *, is_short: bool = False
) -> list[list[str]]:
    """Returns header and rows as strings, without the rows that no column has.

    Args:
        columns: column name (`chance`, a checkpoint) -> its results, in the order to show.
        is_short: leave out details (`Number.is_detail`).
    """
    assert columns, "a table needs a column"
    rows = [["", *map(_shorten, columns)]]
    metrics: dict[str, None] = {}  # an ordered set
    for results in columns.values():
        metrics |= dict.fromkeys(results)
    for metric in metrics:
        for number in numbers_of(metric, columns):
            if is_short and number.is_detail:
                continue
            values = values_of(metric, number.name, columns.values())
            cells = [format_value(value, number) for value in values]
            if set(values) != {None}:
                rows.append([number.title, *cells])
    return rows


def checkpoint_names(paths: Sequence[Path]) -> list[str]:
    """Returns column titles: the shortest kind of name that differs for all checkpoints."""
    folders = [path.parent.name for path in paths]
    files = [path.stem for path in paths]
    both = [f"{path.parent.name}/{path.stem}" for path in paths]
    whole = [str(path) for path in paths]
    for names in (folders, files, both, whole):
        if len(set(names)) == len(names):
            return names
    return [f"{number}. {folder}" for number, folder in enumerate(folders, start=1)]


def numbers_of(
    metric: str, columns: Mapping[str, ResultsLike]
) -> Sequence[MetricValue]:
    """Returns the numbers that a metric declares, or all that were measured if it is unknown."""
    if metric in METRICS:
        return METRICS.get(metric, "metric").numbers
    names: dict[str, None] = {}  # an ordered set
    for results in columns.values():
        names |= dict.fromkeys(results.get(metric, {}))
    return [MetricValue(name, f"{metric} {name}") for name in names]


def values_of(
    metric: str, name: str, columns: Iterable[ResultsLike]
) -> list[float | None]:
    """Returns one number of a metric from each column; None if the column does not have it."""
    values = []
    for results in columns:
        numbers = results.get(metric, {})
        values.append(numbers.get(name))
    return values


def format_value(value: float | None, number: MetricValue) -> str:
    """Returns a share in percent, a rank as it is, and `-` for none."""
    if value is None:
        return "-"
    if number.unit == "share":
        value = 100 * value
    return f"{value:.1f}"


def _shorten(name: str) -> str:
    """Returns the end of a long name, because checkpoints differ there."""
    if len(name) <= _MAX_NAME:
        return name
    end = name[1 - _MAX_NAME :]
    return f"…{end}"
