"""Reads JSON files and tables into pydantic models.

The caller describes the layout of a file as models. Errors name the file and the place in it.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from mmpt.errors import DataError
from mmpt.utils.io import read_json, read_text

T = TypeVar("T")
R = TypeVar("R", bound="Row")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("not be empty")
    return text


def in_order(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Returns `pair` unchanged. A pydantic validator: it refuses an end before the start."""
    if pair[0] > pair[1]:
        raise ValueError("be [start, end] with start <= end")
    return pair


RULES = {
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
    "string_type": "be text",
    "bool_type": "be true or false",
    "list_type": "be a list",
    "tuple_type": "be a list",
    "dict_type": "be a mapping",
    "model_type": "be a mapping",
    "greater_than": "be above {gt:g}",
    "greater_than_equal": "be at least {ge:g}",
    "less_than": "be below {lt:g}",
    "less_than_equal": "be at most {le:g}",
    "too_short": "have a length of at least {min_length}",
    "too_long": "have a length of at most {max_length}",
    "literal_error": "be {expected}",
    "value_error": "{error}",  # raised by a validator of this project
}
"""Requirements on a value, by the type of pydantic's error. They complete the sentence "it must
...". For other types, pydantic's own message is used."""

NotBlank = Annotated[str, AfterValidator(_not_blank)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TimeSpan = Annotated[tuple[Seconds, Seconds], AfterValidator(in_order)]
"""Start and end in seconds."""


class Row(BaseModel):
    """A row of a table. A subclass has a field for each column that is read."""

    model_config = ConfigDict(str_strip_whitespace=True, frozen=True)
    line: int
    """Line of the file on which the row ends, counted from 1."""


def validate(kind: Any, value: Any, where: str | Path, remedy: str) -> Any:
    """Returns `value`, converted to `kind`.

    Args:
        kind: a pydantic model or another type.
        value: a value as read from JSON.
        where: the file, and the line or record in it, for messages.
        remedy: what the file must be and what to do, in sentences.
    Raises:
        DataError: `value` has another layout. The message gives the first mistake.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as err:
        first, *others = err.errors(include_url=False)
        more = f" ({len(others)} more mistakes.)" if others else ""
        raise DataError(f"{where}: {_describe(first)}.{more} {remedy}") from None


def _describe(error: Any) -> str:
    """Returns one of pydantic's errors as a sentence, "`path` must be ..., but is ..."."""
    path = ""
    for key in error["loc"]:
        path += f"[{key}]" if isinstance(key, int) else f".{key}"
    path = path.removeprefix(".")
    path = f"`{path}`" if path else "its content"
    if error["type"] == "missing":
        return f"{path} must be given, but is not"
    return f"{path} must {rule_of(error)}, but is {error['input']!r:.80}"


def rule_of(error: Any) -> str:
    """Returns the requirement that one of pydantic's errors reports, such as "be at least 1"."""
    if error["type"] not in RULES:
        return re.sub(r"^\w+ should ", "", error["msg"])
    limits = error.get("ctx", {})
    rule = RULES[error["type"]].format(**limits)
    if error["type"] == "literal_error":
        rule = rule.replace("'", "`")
    return rule


def read_json_as(path: str | Path, kind: type[T], remedy: str) -> T:
    """Returns the content of a JSON file, converted to `kind`; see `validate`."""
    value: T = validate(kind, read_json(path), path, remedy)
    return value


def read_table(
    path: str | Path,
    kind: type[R],
    *,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
) -> list[R]:
    """Returns the rows of a table in UTF-8, at least one. Blank lines are skipped.

    Args:
        kind: model of a row. The table may have further columns.
        delimiter: the separator of cells.
        header: names of all columns, for a file whose first line is not a header.
    Raises:
        DataError: the file is missing or not text, columns are missing, a row is wrong, or there
            are no rows.
    """
    text = io.StringIO(read_text(path, "a table"), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    rows: list[R] = []
    for where, line, cells in _lines_of_cells(path, reader):
        if header is None:
            header = [name.strip() for name in cells]
            _check_header(path, kind, header, delimiter)
            continue
        if len(cells) != len(header):
            names = ", ".join(header)
            raise DataError(
                f"{where}: must have {len(header)} cells ({names}), but has {len(cells)}. Cells "
                "that hold the separator must be quoted."
            )
        values = dict(zip(header, cells, strict=True), line=line)
        row = validate(kind, values, where, "Correct or remove the row.")
        rows.append(row)
    if not rows:
        raise DataError(
            f"{path}: must hold at least one row, but holds none. Correct the file or its path."
        )
    return rows


def _lines_of_cells(
    path: str | Path, reader: Any
) -> Iterator[tuple[str, int, list[str]]]:
    """Yields the place of each row for messages, its last line, and its cells.

    Raises:
        DataError: the text is not a table.
    """
    end = 0  # last line of the previous row
    try:
        for cells in reader:
            # A row may have several lines, for example if a quote is closed too late.
            begin, end = end + 1, reader.line_num
            where = (
                f"{path}, line {end}"
                if begin == end
                else f"{path}, lines {begin} to {end}"
            )
            if any(map(str.strip, cells)):
                yield where, end, cells
    except csv.Error as err:
        raise DataError(
            f"{path}, line {end + 1}: not a table ({err}). A quote at the beginning of a cell must "
            "be closed at its end. A quote that belongs to a text is doubled, and its cell is "
            'quoted: "say ""hi""".'
        ) from None


def _check_header(
    path: str | Path, kind: type[Row], header: list[str], delimiter: str
) -> None:
    """Raises DataError if columns that `kind` needs are missing."""
    missing = []
    for name, field in kind.model_fields.items():
        if name != "line" and field.is_required() and name not in header:
            missing.append(name)
    if missing:
        needed, first_line = ", ".join(missing), delimiter.join(header)
        raise DataError(
            f"{path}: must have the columns {needed} (cells separated by {delimiter!r}), but its "
            f"first line is {first_line!r:.100}. This may be another data set's file: correct its "
            "path."
        )
