"""Annotation tables: CSV and TSV files by the names of their columns, every mistake named with file
and line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmpt.errors import DataError

_TABLE = "a table"


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Line of the file on which the row ends, from 1."""
    values: dict[str, str]
    """Column name -> cell, stripped of white space around it."""


def read_table(
    path: str | Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
) -> list[Row]:
    """Reads a table in UTF-8, with or without a byte order mark; blank lines are passed over.

    Args:
        columns: names of the columns that must be there, with a value in every row; others may be
            there and empty.
        delimiter: what stands between cells.
        header: names of all columns, for a file whose first line is not a header.
    Returns:
        The rows in their order, at least one.
    Raises:
        DataError: missing or not text, another file's columns, a row of another length, an empty
            cell, or no rows.
    """
    lines = _read_lines(path, delimiter)
    names = (
        list(header)
        if header is not None
        else [name.strip() for name in lines.pop(0)[1]]
        if lines
        else []
    )
    if absent := [name for name in columns if name not in names]:
        raise DataError(
            f"{path}: must have the column{'s' if len(absent) > 1 else ''} {', '.join(absent)} (cells separated by "
            f"{_name_of(delimiter)}), but its first line is {delimiter.join(names)!r:.100}. This may be another data "
            "set's file: correct its path under `dataset`."
        )
    rows = [_make_row(path, line, cells, names, columns) for line, cells in lines]
    if not rows:
        raise DataError(f"{path}: must hold a row at least, but holds none. Download it again.")
    return rows


def _read_lines(path: str | Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """Returns line number and cells of every line that is not blank."""
    reader = csv.reader(
        io.StringIO(read_text(path, _TABLE), newline=""), delimiter=delimiter, strict=True
    )
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as err:
        raise _not_in_utf8(path, _TABLE, err) from None


def read_text(path: str | Path, kind: str = "text") -> str:
    """Returns a file in UTF-8, with or without a byte order mark, its line ends as they are.

    Args:
        kind: what it must be, for the message.
    Raises:
        DataError: missing, or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file. Correct the path, or download the file again."
        ) from None
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror}. Correct the path.") from None
    except UnicodeDecodeError as err:
        raise _not_in_utf8(path, kind, err) from None


def _not_in_utf8(path: str | Path, kind: str, err: Exception) -> DataError:
    return DataError(
        f"{path}: not {kind} in UTF-8 ({err}). Download it again, or correct its path."
    )


def _make_row(
    path: str | Path, line: int, cells: list[str], names: list[str], columns: Sequence[str]
) -> Row:
    if len(cells) != len(names):
        raise DataError(
            f"{path}, line {line}: must have {len(names)} cells ({', '.join(names)}), but has {len(cells)}. Cells that "
            "hold the separator must be quoted."
        )
    values = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
    if empty := [name for name in columns if not values[name]]:
        raise DataError(
            f"{path}, line {line}: `{empty[0]}` must not be empty, but is. Correct or remove the row."
        )
    return Row(line, values)


def _name_of(delimiter: str) -> str:
    return {",": "commas", "\t": "tabs"}.get(delimiter, repr(delimiter))
