"""Data from files as pydantic models. A mistake becomes a `DataError` that names its file and place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mmpt.errors import DataError
from mmpt.utils.io import read_json

T = TypeVar("T")


def validate(kind: Any, value: Any, where: str | Path, remedy: str) -> Any:
    """Returns `value` as `kind`, a pydantic model or another type.

    Args:
        where: the file, and its line or record, for messages.
        remedy: what the file must be and what to do, in sentences.
    Raises:
        DataError: `value` is of another layout. The first mistake is named.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as err:
        first, *others = err.errors(include_url=False)
        more = f" ({len(others)} more mistakes.)" if others else ""
        raise DataError(f"{where}: {_describe(first)}.{more} {remedy}") from None


def _describe(error: Any) -> str:
    """Returns one of pydantic's errors as `place must be ..., but is ...`."""
    place = ""
    for part in error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    place = f"`{place.removeprefix('.')}`" if place else "its content"
    if error["type"] == "missing":
        return f"{place} must be given, but is not"
    if error["type"] == "value_error":
        rule = f"must {error['ctx']['error']}"
    else:
        rule = re.sub(r"^\w+ should ", "must ", error["msg"])
        rule = re.sub(r"valid dictionary or instance of \w+", "dictionary", rule)
    return f"{place} {rule}, but is {error['input']!r:.80}"


def read_json_as(path: str | Path, kind: type[T], remedy: str) -> T:
    """Returns a JSON file as `kind`; see `validate`."""
    return validate(kind, read_json(path), path, remedy)  # type: ignore[no-any-return]
