"""A field of the schema with its bounds beside it, and the function that turns a YAML value into the field's type."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_INT = 2**31 - 1
"""Whole numbers of a YAML end here: none of them counts more, and arrays of int32 hold it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a value must satisfy beyond its type, and what kind of setting it is."""

    at_least: float | None = None
    """Smallest number allowed."""
    above: float | None = None
    """Numbers must be greater than this."""
    at_most: float | None = None
    """Largest number allowed."""
    one_of: tuple[str, ...] = ()
    """The only texts allowed; empty: any."""
    is_path: bool = False
    """The value names a file or folder that must exist before a job starts."""
    inert: bool = False
    """Old YAMLs have it, nothing reads it."""

    def allow(self, value: Any) -> bool:
        """True when `value`, already of the right type, is within the limits."""
        if isinstance(value, str):
            return not self.one_of or value in self.one_of
        if isinstance(value, list):
            return all(self.allow(item) for item in value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
        )

    def describe(self) -> str:
        """Return the bounds of a number in words, with a leading space, or an empty string."""
        bounds = [("of at least", self.at_least), ("above", self.above), ("at most", self.at_most)]
        said = [
            f"{word} {bound if isinstance(bound, int) else format(bound, 'g')}"
            for word, bound in bounds
            if bound is not None
        ]
        return " " + " and ".join(said) if said else ""


NO_LIMITS = Limits()


def setting(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    one_of: tuple[str, ...] = (),
    is_path: bool = False,
    inert: bool = False,
) -> Any:
    """Return a dataclass field with `default` and the `Limits` of the same names."""
    limits = Limits(at_least=at_least, above=above, at_most=at_most, one_of=one_of, is_path=is_path, inert=inert)
    return dataclasses.field(default=default, metadata={"limits": limits})


def limits_of(field: dataclasses.Field[Any]) -> Limits:
    """Return the limits that stand beside `field`."""
    return field.metadata.get("limits", NO_LIMITS)


def coerce(value: Any, annotation: Any, limits: Limits = NO_LIMITS) -> Any:
    """Return the YAML value `value` as the type `annotation` says.

    A number may be written as text (YAML reads `1e-5` as text), a whole number as `2.0`, a list of one as its element.
    Raises:
        ValueError: wrong type or out of bounds; the message reads "must be .., but is ..".
    """
    kinds = [kind for kind in _alternatives(annotation) if kind is not types.NoneType]
    for kind in kinds:
        converted = _convert(value, kind)
        if isinstance(converted, int) and abs(converted) > LARGEST_INT:
            raise ValueError(f"must be at most {LARGEST_INT} in size, but is {_shown(value)}")
        if converted is not None and limits.allow(converted):
            return converted
    expected = " or ".join(_describe(kind, limits) for kind in kinds)
    raise ValueError(f"must be {expected}, but is {_shown(value)}")


def mistakes_in(section: Any, path: str) -> list[str]:
    """Return a sentence for every value of a section, made in code, that a YAML file could not say.

    Args:
        section: an instance of one of the schema's dataclasses; those in it are looked into.
        path: what to call it.
    """
    annotations = typing.get_type_hints(type(section))
    problems: list[str] = []
    for field in dataclasses.fields(section):
        value, where = getattr(section, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(value):
            problems += mistakes_in(value, where)
        elif value is not None:
            try:
                coerce(value, annotations[field.name], limits_of(field))
            except ValueError as err:
                problems.append(f"`{where}` {err}.")
    return problems


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _convert(value: Any, kind: Any) -> Any:
    """Return `value` as `kind`, or None when it is of another kind."""
    origin = typing.get_origin(kind) or kind
    if kind is Any:
        return value
    if origin is list:
        (inner,) = typing.get_args(kind)
        items = [_convert(item, inner) for item in (value if isinstance(value, list) else [value])]
        return None if None in items else items
    if origin is dict:
        return dict(value) if isinstance(value, Mapping) else None
    if kind is bool or isinstance(value, bool):
        return value if isinstance(value, bool) and kind is bool else None
    if kind in (int, float):
        return _convert_number(value, kind)
    return value if isinstance(value, kind) else None


def _convert_number(value: Any, kind: type) -> int | float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind is int:
        return int(value) if value == int(value) else None
    return value


def _describe(kind: Any, limits: Limits) -> str:
    origin = typing.get_origin(kind) or kind
    if origin is list:
        return f"a list, each {_describe(typing.get_args(kind)[0], limits)}"
    if kind is str and limits.one_of:
        return " or ".join(f"`{name}`" for name in limits.one_of)
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping"}
    return names[origin] + (limits.describe() if origin in (int, float) else "")


def _shown(value: Any) -> str:
    kinds = {str: "text", bool: "true/false", int: "a number", float: "a number", dict: "a mapping", list: "a list"}
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({kinds.get(type(value), type(value).__name__)})"
