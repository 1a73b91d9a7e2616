"""Checks a mapping against a pydantic model. Every mistake becomes a sentence: what, the bound, the
value found, the remedy."""

import typing
from itertools import chain
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from mmpt.config.fairseq import REFUSED
from mmpt.config.schema import REMOVED_KEYS, Settings
from mmpt.config.sections import readers_of
from mmpt.registry import did_you_mean
from mmpt.utils.validation import rule_of

MOST_NAMED = 2
"""Number of classes that a message about a foreign key names."""


def validate(
    model: type[BaseModel],
    values: dict[Any, Any],
    at: str = "",
    whole: type[BaseModel] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Returns the values that a model accepts, without null, and a sentence for each mistake.

    Args:
        at: dotted name of the section that `model` describes; "" is the top level.
        whole: the model of all sections. Default: `model`.
    Returns:
        The values as the model reads them, but whole numbers as they are, in the order of
        `values`; and the mistakes.
    """
    whole = whole or model
    good: dict[str, Any] = {}
    problems = []
    # Each key is validated alone, so all of its errors are about one setting.
    for key, value in values.items():
        name = f"{at}.{key}" if at else str(key)
        section = _section(model, key)
        if section is not None and isinstance(value, dict):
            good[key], mistakes = validate(section, value, name, whole)
            problems += mistakes
            continue
        try:
            checked = model.model_validate({key: value})
            if value is not None:
                good[key] = value if type(value) is int else getattr(checked, key)
        except ValidationError as err:
            # The default of another key may depend on this one, and fails with it.
            errors = [e for e in err.errors() if e["type"] != "default_factory_not_called"]
            if errors[0]["type"] in ("extra_forbidden", "invalid_key"):
                readers = readers_of(at, str(key)) if issubclass(whole, Settings) else []
                # Null unsets a key of an included file, also one that no class reads any more.
                if not (readers and value is None):
                    problems.append(_unknown_key(whole, at, str(key), readers))
            else:
                problems.append(f"`{name}` must {_rule(errors)}, but is {value!r:.60}.")
    return good, problems


def _section(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    """Returns the model of the section called `key`; None for other keys."""
    field = model.model_fields.get(key)
    annotation = None if field is None else field.annotation
    for kind in typing.get_args(annotation) or (annotation,):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _rule(errors: list[ErrorDetails]) -> str:
    """Returns what a value must do. A union has an error for each alternative."""
    rules = []
    for error in errors:
        rule = rule_of(error)
        if any(isinstance(place, int) for place in error["loc"][1:]):
            rule = f"be a list, each {rule.removeprefix('be ')}"
        rules.append(rule)
    return " or ".join(rules).replace(" or be ", " or ")


def _unknown_key(whole: type[BaseModel], at: str, key: str, readers: list[str]) -> str:
    """Returns the sentence for an unknown key: its place, its readers, or the nearest known name.

    Args:
        readers: the classes that read the key, none of which the file names.
    """
    path = f"{at}.{key}" if at else key
    if path in REMOVED_KEYS:
        return f"`{path}` is no longer a key: {REMOVED_KEYS[path]}."
    if at.startswith("fairseq") and key in REFUSED:
        return f"`{path}` {REFUSED[key]}."
    homes = _known_keys(whole)
    homes.pop("retrieval", None)  # its keys are known at the top level, too
    places = [home for home, names in homes.items() if key in names]
    if "fairseq.optimization" in places:
        places = ["fairseq.optimization"]
    if places:
        belongs = " or ".join(f"under `{home}`" if home else "at the top level" for home in places)
        return f"`{path}` is not a known key; `{key}` belongs {belongs}."
    if readers:
        *names, last = [f"`{name}`" for name in readers]
        if len(readers) > MOST_NAMED:
            names, last = names[:MOST_NAMED], f"{len(readers) - MOST_NAMED} more"
        classes = f"{', '.join(names)} and {last}" if names else last
        return (
            f"`{path}` is a key of {classes}, but this file names no such class; leave the key "
            "out, or set it to null."
        )
    hint = did_you_mean(key, homes[at]) or did_you_mean(key, [*chain(*homes.values())])
    return f"`{path}` is not a known key.{hint}"


def _known_keys(model: type[BaseModel], at: str = "") -> dict[str, list[str]]:
    """Returns the keys of each section, by the section's dotted name."""
    homes = {at: list(model.model_fields)}
    for key in model.model_fields:
        section = _section(model, key)
        if section is not None:
            homes |= _known_keys(section, f"{at}.{key}" if at else key)
    return homes
