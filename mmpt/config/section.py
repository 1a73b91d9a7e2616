"""The base class of all sections of a YAML file, and the types of their values."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

LARGEST_INT = 2**31 - 1
"""Largest size of a whole number, which an int32 array holds."""


class Section(BaseModel):
    """A frozen mapping of settings. Unknown keys are mistakes; null stands for the default."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        known = cls.model_fields
        return {
            key: value for key, value in values.items() if value is not None or key not in known
        }

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with other values for some fields, which are checked like a YAML's."""
        return type(self)(**{**dict(self), **changes})


def _read_number(value: Any) -> Any:
    """Returns the number that a text such as `'1e-5'` stands for."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def _read_whole_number(value: Any) -> Any:
    """Returns an int for `3`, `3.0` and `'3'`."""
    number = _read_number(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, int) and abs(number) > LARGEST_INT:
        raise ValueError(f"be at most {LARGEST_INT} in size")
    return number


def _refuse_all_but_false(value: Any) -> Any:
    if value is not False:  # 0 is no switch
        raise ValueError("be false")
    return value


# `strict` refuses true and false, which Python takes for 1 and 0.
Int = Annotated[int, Field(strict=True), BeforeValidator(_read_whole_number)]
Natural = Annotated[int, Field(strict=True, ge=0), BeforeValidator(_read_whole_number)]
Count = Annotated[int, Field(strict=True, ge=1), BeforeValidator(_read_whole_number)]
Float = Annotated[float, Field(strict=True), BeforeValidator(_read_number)]
NotNegative = Annotated[float, Field(strict=True, ge=0), BeforeValidator(_read_number)]
Positive = Annotated[float, Field(strict=True, gt=0), BeforeValidator(_read_number)]
Share = Annotated[float, Field(strict=True, ge=0, le=1), BeforeValidator(_read_number)]
PositiveShare = Annotated[float, Field(strict=True, gt=0, le=1), BeforeValidator(_read_number)]
Switch = StrictBool
Off = Annotated[bool, BeforeValidator(_refuse_all_but_false)]

INPUT = "input"
"""Marks a path that must exist before a job starts."""
INERT = "inert"
"""Marks a key of old YAMLs that nothing reads."""
InputPath = Annotated[str | None, INPUT]
