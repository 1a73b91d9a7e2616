"""Checks a mapping against a pydantic model. Every mistake becomes a sentence: what, the bound, the
value found, the remedy."""

from __future__ import annotations

import typing
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mmpt.config.fairseq import REFUSED
from mmpt.config.schema import REMOVED_KEYS
from mmpt.registry import did_you_mean
from mmpt.utils.validation import rule_of

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[Any, ...]


def validate(model: type[Model], values: dict[Any, Any]) -> tuple[Model, list[str]]:
    """Returns a model of `values`, with the default for each mistaken value, and all mistakes."""
    try:
        return model.model_validate(values), []
    except ValidationError as err:
        errors = err.errors(include_url=False)
    mistakes: dict[Keys, list[ErrorDetails]] = defaultdict(list)
    for error in errors:
        if error["type"] != "default_factory_not_called":  # follows from another mistake
            mistakes[_setting(model, error["loc"])].append(error)
    problems = []
    rest = values
    for keys, alternatives in mistakes.items():
        problems.append(_sentence(model, keys, alternatives, _look_up(values, keys)))
        rest = _without(rest, keys)
    return model.model_validate(rest), problems


def _setting(model: type[BaseModel], loc: Keys) -> Keys:
    """Returns the part of pydantic's `loc` that names a setting.

    The rest is a place in the value, or an alternative of its type.
    """
    for depth, key in enumerate(loc, start=1):
        section = _section(model, key)
        if section is None:
            return loc[:depth]
        model = section
    return loc


def _section(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    """Returns the model of the section called `key`; None for other keys."""
    field = model.model_fields.get(key)
    annotation = None if field is None else field.annotation
    for kind in typing.get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _look_up(values: Any, keys: Keys) -> Any:
    for key in keys:
        values = values[key]
    return values


def _without(values: dict[Any, Any], keys: Keys) -> dict[Any, Any]:
    """Returns a copy of a mapping without the value at `keys`."""
    rest = dict(values)
    if len(keys) == 1:
        del rest[keys[0]]
    else:
        rest[keys[0]] = _without(rest[keys[0]], keys[1:])
    return rest


def _sentence(
    model: type[BaseModel], keys: Keys, alternatives: list[ErrorDetails], value: Any
) -> str:
    """Returns the sentence for the setting at `keys`. A union has an error for each alternative."""
    rules = []
    for error in alternatives:
        if error["type"] in ("extra_forbidden", "invalid_key"):
            return _unknown_key(model, keys)
        rule = rule_of(error)
        inside = error["loc"][len(keys) :]
        if any(isinstance(place, int) for place in inside):
            rule = f"be a list, each {rule.removeprefix('be ')}"
        rules.append(rule)
    found = repr(value)
    shown = found if len(found) <= 60 else found[:57] + "..."
    rule = " or ".join(rules).replace(" or be ", " or ")
    return f"`{_dotted(keys)}` must {rule}, but is {shown}."


def _dotted(keys: Keys) -> str:
    """Returns the name of a setting as YAMLs have it: the keys of `retrieval` without a prefix."""
    names = keys[1:] if len(keys) > 1 and keys[0] == "retrieval" else keys
    return ".".join(map(str, names))


def _unknown_key(model: type[BaseModel], keys: Keys) -> str:
    """Returns the sentence for a key that nobody reads: its place, or the nearest known name."""
    path, section, key = _dotted(keys), _dotted(keys[:-1]), str(keys[-1])
    if path in REMOVED_KEYS:
        return f"`{path}` is no longer a key: {REMOVED_KEYS[path]}."
    if keys[0] == "fairseq" and key in REFUSED:
        return f"`{path}` {REFUSED[key]}."
    homes: dict[str, list[str]] = defaultdict(list)
    for home, name in _known_keys(model, ()):
        homes[home].append(name)
    places = [home for home, names in homes.items() if key in names]
    if "fairseq.optimization" in places:
        places = ["fairseq.optimization"]
    if places:
        belongs = " or ".join(f"under `{home}`" if home else "at the top level" for home in places)
        return f"`{path}` is not a known key; `{key}` belongs {belongs}."
    hint = did_you_mean(key, homes[section]) or did_you_mean(key, [*chain(*homes.values())])
    return f"`{path}` is not a known key.{hint}"


def _known_keys(model: type[BaseModel], at: Keys) -> Iterator[tuple[str, str]]:
    """Yields each key of a model and of its sections, after the name of its section."""
    for name in model.model_fields:
        section = _section(model, name)
        if section is not None:
            yield from _known_keys(section, (*at, name))
        yield "" if at == ("retrieval",) else _dotted(at), name
