"""Checks a mapping against a pydantic model. Every mistake becomes a sentence: what, the bound, the
value found, the remedy."""

import typing
from itertools import chain
from typing import Any

from pydantic import BaseModel, ValidationError

from mmpt.config.fairseq import REFUSED
from mmpt.config.schema import REMOVED_KEYS, Settings
from mmpt.config.sections import readers_of
from mmpt.registry import did_you_mean
from mmpt.utils.validation import rule_of

Model = type[BaseModel]
MAX_LISTED = 2
"""Largest number of class names in a message about a key that only other classes read."""


def validate(
    model: Model,
    values: dict[Any, Any],
    at: str = "",
    whole: Model | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Returns the values that a model accepts, without null, and a sentence for each mistake.

    Args:
        at: dotted name of the section that `model` describes; "" is the top level.
        whole: the model of all sections. Default: `model`.
    Returns:
        The accepted values in their order in `values`, and the mistakes. The model has converted
        the values, except that integers stay integers.
    """
    whole = whole or model
    good: dict[str, Any] = {}
    problems = []
    # Each key is validated alone, so all of its errors are about one setting.
    for key, value in values.items():
        name = _dotted(at, key)
        section = _section(model, key)
        if section is not None and isinstance(value, dict):
            good[key], mistakes = validate(section, value, name, whole)
            problems += mistakes
            continue
        try:
            checked = model.model_validate({key: value})
        except ValidationError as err:
            problem = _problem(err, name, value)
            if problem is None:
                readers = []
                if issubclass(whole, Settings):
                    readers = readers_of(at, str(key))
                # Null unsets a key of an included file, even if no class of this file reads it.
                if value is None and readers:
                    continue
                problem = _unknown_key(whole, at, str(key), readers)
            problems.append(problem)
            continue
        if value is not None:
            good[key] = value if type(value) is int else getattr(checked, key)
    return good, problems


def _dotted(section: str, key: Any) -> str:
    """Returns the path of a key. The section "" is the top level."""
    return f"{section}.{key}" if section else str(key)


def _section(model: Model, key: Any) -> Model | None:
    """Returns the model of the section called `key`; None for other keys."""
    field = model.model_fields.get(key)
    if field is None:
        return None
    alternatives = typing.get_args(field.annotation) or (field.annotation,)
    for kind in alternatives:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _problem(error: ValidationError, name: str, value: Any) -> str | None:
    """Returns the sentence for a wrong value of the key `name`. For an unknown key, returns None.

    A value of a union has one error for each alternative. They are joined by "or".
    """
    rules = []
    for details in error.errors():
        kind = details["type"]
        if kind in ("extra_forbidden", "invalid_key"):
            return None
        if kind == "default_factory_not_called":
            continue  # the default of another key depends on this one
        rule = rule_of(details)
        if any(isinstance(place, int) for place in details["loc"][1:]):
            rule = f"be a list, each {rule.removeprefix('be ')}"
        rules.append(rule)
    all_rules = " or ".join(rules).replace(" or be ", " or ")
    return f"`{name}` must {all_rules}, but is {value!r:.60}."


def _unknown_key(whole: Model, at: str, key: str, readers: list[str]) -> str:
    """Returns the sentence for an unknown key: its place, its readers, or the nearest known name.

    Args:
        readers: the classes that read the key, none of which the file names.
    """
    path = _dotted(at, key)
    if path in REMOVED_KEYS:
        return f"`{path}` is no longer a key: {REMOVED_KEYS[path]}."
    if at.startswith("fairseq") and key in REFUSED:
        return f"`{path}` {REFUSED[key]}."
    keys_by_section = _known_keys(whole)
    keys_by_section.pop("retrieval", None)  # its keys are known at the top level, too
    places = [section for section, keys in keys_by_section.items() if key in keys]
    if "fairseq.optimization" in places:
        places = ["fairseq.optimization"]
    if places:
        sections = [
            f"under `{place}`" if place else "at the top level" for place in places
        ]
        belongs = " or ".join(sections)
        return f"`{path}` is not a known key; `{key}` belongs {belongs}."
    if readers:
        return (
            f"`{path}` is a key of {_listed(readers)}, but this file names no such class; leave "
            "the key out, or set it to null."
        )
    all_keys = list(chain(*keys_by_section.values()))
    hint = did_you_mean(key, keys_by_section[at]) or did_you_mean(key, all_keys)
    return f"`{path}` is not a known key.{hint}"


def _listed(classes: list[str]) -> str:
    """Returns the names of classes as text: the first ones, and the number of the others."""
    names = [f"`{name}`" for name in classes]
    if len(names) == 1:
        return names[0]
    *first, last = names
    if len(names) > MAX_LISTED:
        first, last = names[:MAX_LISTED], f"{len(names) - MAX_LISTED} more"
    return f"{', '.join(first)} and {last}"


def _known_keys(model: Model, at: str = "") -> dict[str, list[str]]:
    """Returns the keys of each section, by the section's dotted name."""
    keys_by_section = {at: list(model.model_fields)}
    for key in model.model_fields:
        section = _section(model, key)
        if section is not None:
            keys_by_section |= _known_keys(section, _dotted(at, key))
    return keys_by_section
