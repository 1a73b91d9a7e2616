"""YAML files as plain mappings: includes and overrides are merged, interpolations are resolved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.errors import ConfigError
from mmpt.utils.io import atomic_write

Values = dict[str, Any]
YAML_ERRORS = (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, RecursionError)
"""Exceptions of OmegaConf for text that is no YAML. It also refuses duplicate keys."""


def read_yaml(path: str | Path, overrides: Values | None = None) -> Values:
    """Reads a YAML file and everything that it includes.

    Args:
        path: the file. `includes` in it is one path, relative to the current directory.
        overrides: merged last. Mappings are merged key by key; other values replace.
    Raises:
        ConfigError: a file is missing or broken, includes itself in the end, or an interpolation
            `${section.key}` names nothing.
    """
    path = str(path)
    try:
        merged = OmegaConf.merge(_read_stack(path, ()), overrides or {})
        return _plain(merged, resolve=True)
    except OmegaConfBaseException as err:
        reason, what = str(err).splitlines()[0], "includes and overrides do not fit each other"
        if err.full_key:
            what = f"`{err.full_key}` cannot be resolved"
        raise ConfigError(path, [f"{what}: {reason}."]) from err


def _read_stack(path: str, chain: tuple[str, ...]) -> Values:
    """Returns a file merged onto what it includes. `chain` holds the files that include it."""
    if path in chain:
        names = " -> ".join((*chain, path))
        raise ConfigError(chain[0], [f"`includes` goes round in a circle: {names}."])
    try:
        config = OmegaConf.load(path)
    except OSError as err:
        problem = f"cannot be read: {err.strerror or err}."
        if isinstance(err, FileNotFoundError):
            problem = "no such file; paths are relative to the current directory."
        source = f"`includes` names `{path}`: " if chain else ""
        raise ConfigError((*chain, path)[-2:][0], [f"{source}{problem}"]) from err
    except YAML_ERRORS as err:
        raise ConfigError(path, [f"not valid YAML: {_reason(err)}"]) from err
    if not OmegaConf.is_dict(config):
        raise ConfigError(path, ["must hold a mapping of keys, but holds a list."])
    values = _plain(config)
    section = values.get("retrieval")
    twice = sorted(section.keys() & values.keys()) if isinstance(section, dict) else []
    if twice:
        text = "`{0}` and `retrieval.{0}` are one setting; remove either."
        raise ConfigError(path, [text.format(key) for key in twice])
    values = _lifted(values)
    base = values.pop("includes", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(path, [f"`includes` must be one path, but is {base!r}."])
    return _plain(OmegaConf.merge(_read_stack(base, (*chain, path)), values))


def _reason(err: Exception) -> str:
    if isinstance(err, RecursionError):
        return "an anchor (`&`) holds itself, or brackets nest too deep."
    return f"{' '.join(str(err).split())}."


def _plain(config: Any, *, resolve: bool = False) -> Values:
    container: Any = OmegaConf.to_container(config, resolve=resolve)
    return {str(key): value for key, value in container.items()}


def _lifted(values: Values) -> Values:
    """Moves the keys of a section `retrieval` to the top level, where the release has them."""
    section = values.pop("retrieval", None)
    if isinstance(section, dict):
        values |= section
    elif section is not None:  # a mistake, which the loader reports
        values["retrieval"] = section
    return values


def parse_overrides(overrides: Sequence[str]) -> tuple[Values, list[str]]:
    """Returns texts such as `a.b=value` (values are YAML) as one mapping, and all mistakes."""
    values: Values = {}
    problems = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        if key.split(".")[0] == "includes":
            reason = "comes too late: `includes` is read from files only"
            problems.append(f"the override `{override}` {reason}.")
        elif not equals or not all(key.split(".")):
            problems.append(f"the override `{override}` must have the form `section.key=value`.")
        else:
            try:
                parsed = _lifted(_plain(OmegaConf.from_dotlist([override])))
                values = _plain(OmegaConf.merge(values, parsed))
            except YAML_ERRORS as err:
                reason = _reason(err)
                problems.append(f"the value of the override `{override}` is not YAML: {reason}")
    return values, problems


def write_yaml(path: str | Path, values: Values) -> None:
    """Writes a mapping as YAML, in its own order, atomically."""
    with atomic_write(path) as file:
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)
