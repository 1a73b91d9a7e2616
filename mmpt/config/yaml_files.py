"""YAML files as plain mappings: includes are stacked, overrides go on top; nothing is checked beyond the syntax."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.errors import ConfigError
from mmpt.utils.io import atomic_write


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` on it: mappings merge key by key at any depth; scalars, lists and nulls replace."""
    merged = dict(base)
    for key, value in top.items():
        both_are_mappings = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both_are_mappings else value
    return merged


def read_yaml(path: str | Path, *, _chain: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a YAML file and everything it includes; `includes` is one path, relative to the current directory.

    Raises:
        ConfigError: a file is missing or broken, or includes itself in the end.
    """
    path = str(path)
    if path in _chain:
        raise ConfigError(_chain[0], [f"`includes` goes round in a circle: {' -> '.join((*_chain, path))}."])
    values = _read_one(path, included_by=_chain[-1] if _chain else None)
    base = values.pop("includes", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(path, [f"`includes` must be one path, but is {base!r}."])
    return merge(read_yaml(base, _chain=(*_chain, path)), values)


def _read_one(path: str, included_by: str | None) -> dict[str, Any]:
    try:
        # OmegaConf's reader takes `1e-5` for a number and refuses a key that stands twice.
        values = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        if included_by is None:
            raise ConfigError(path, ["no such file; paths are relative to the current directory."]) from None
        problem = f"`includes` names `{path}`, which does not exist; it is relative to the current directory."
        raise ConfigError(included_by, [problem]) from None
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as err:
        raise ConfigError(path, [f"not valid YAML: {' '.join(str(err).split())}."]) from err
    except RecursionError:
        raise ConfigError(path, ["not valid YAML: an anchor (`&`) holds itself, or brackets nest too deep."]) from None
    except OSError as err:
        if included_by is None:
            raise ConfigError(path, [f"cannot be read: {err.strerror or err}."]) from err
        problem = f"`includes` names `{path}`, which cannot be read: {err.strerror or err}."
        raise ConfigError(included_by, [problem]) from err
    if not isinstance(values, dict):
        raise ConfigError(path, [f"must hold a mapping of keys, but holds a {type(values).__name__}."])
    named = {str(key): value for key, value in values.items()}
    if isinstance(section := named.get("retrieval"), dict) and (twice := sorted(section.keys() & named.keys())):
        problems = [f"`{key}` and `retrieval.{key}` are one setting; remove either." for key in twice]
        raise ConfigError(path, problems)
    return _lifted(named)


def _lifted(values: dict[str, Any]) -> dict[str, Any]:
    """Return a mapping with the keys of a section `retrieval` at the top level, where the release has them."""
    section = values.get("retrieval")
    if section is not None and not isinstance(section, dict):
        return values
    others = {key: value for key, value in values.items() if key != "retrieval"}
    return others | {str(key): value for key, value in (section or {}).items()}


def parse_overrides(overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return `a.b=value` texts as one nested mapping (values are YAML), and what is wrong with them."""
    values: dict[str, Any] = {}
    problems = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        if key.split(".")[0] == "includes":
            problems.append(f"the override `{override}` comes too late: `includes` is read from YAML files only.")
            continue
        if not equals or not all(key.split(".")):
            problems.append(f"the override `{override}` must have the form `section.key=value`.")
            continue
        try:
            parsed = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
        except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as err:
            problems.append(f"the value of the override `{override}` is not YAML: {' '.join(str(err).split())}.")
            continue
        assert isinstance(parsed, dict)
        values = merge(values, _lifted({str(name): value for name, value in parsed.items()}))
    return values, problems


def write_yaml(path: str | Path, values: dict[str, Any]) -> None:
    """Write a mapping as YAML, in its own order, atomically."""
    with atomic_write(path) as file:
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)
