"""YAML files as plain mappings: includes and overrides are merged, interpolations are resolved."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt.errors import ConfigError, first_line
from mmpt.utils.io import atomic_write

Values = dict[str, Any]
YAML_SUFFIXES = (".yaml", ".yml")
"""Endings of the names of YAML files."""
YAML_ERRORS = (
    yaml.YAMLError,
    OmegaConfBaseException,
    UnicodeDecodeError,
    RecursionError,
)
"""Exceptions of OmegaConf for invalid YAML. It also refuses duplicate keys."""
_PLAIN_TEXT = re.compile(r"[A-Za-z_/][\w ./-]*", re.ASCII)
"""Text that needs no quotes. (PyYAML itself adds quotes to words such as `null`.)"""


def read_yaml(path: str | Path, overrides: Values | None = None) -> Values:
    """Reads a YAML file and everything that it includes.

    Args:
        path: the file. `includes` in it is one path, relative to the current directory.
        overrides: merged last. Mappings are merged key by key; other values replace.
    Raises:
        ConfigError: a file is missing or broken, includes itself directly or indirectly, or an
            interpolation `${section.key}` names nothing.
    """
    path = str(path)
    try:
        stack = _read_stack(path, ())
        merged = OmegaConf.merge(stack, overrides or {})
        return _plain(merged, resolve=True)
    except OmegaConfBaseException as err:
        reason = first_line(err)
        what = "includes and overrides do not fit each other"
        if err.full_key:
            what = f"`{err.full_key}` cannot be resolved"
        raise ConfigError(path, [f"{what}: {reason}."]) from err


def read_without_includes(path: str | Path) -> Values:
    """Reads the keys that a YAML file sets itself. Interpolations are not resolved.

    Raises:
        ConfigError: the file is missing or broken.
    """
    return _lifted(_read_file(str(path), includer=None))


def _read_stack(path: str, chain: tuple[str, ...]) -> Values:
    """Returns a file merged over the one that it includes.

    Args:
        chain: the files that include it, the outermost one first.
    """
    if path in chain:
        names = " -> ".join((*chain, path))
        raise ConfigError(chain[0], [f"the file includes itself: {names}."])
    values = _read_file(path, chain[-1] if chain else None)
    section = values.get("retrieval")
    if isinstance(section, dict):
        twice = sorted(section.keys() & values.keys())
        if twice:
            text = "`{0}` and `retrieval.{0}` are one setting; remove either."
            raise ConfigError(path, [text.format(key) for key in twice])
    values = _lifted(values)
    base = values.pop("includes", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(path, [f"`includes` must be one path, but is {base!r}."])
    included = _read_stack(base, (*chain, path))
    return _plain(OmegaConf.merge(included, values))


def _read_file(path: str, includer: str | None) -> Values:
    """Returns the content of one file.

    Args:
        includer: the file that includes it, for messages.
    """
    try:
        config = OmegaConf.load(path)
    except OSError as err:
        problem = f"cannot be read: {err.strerror or err}."
        if isinstance(err, FileNotFoundError):
            problem = "no such file; paths are relative to the current directory."
        if includer is None:
            raise ConfigError(path, [problem]) from err
        raise ConfigError(includer, [f"`includes` names `{path}`: {problem}"]) from err
    except YAML_ERRORS as err:
        raise ConfigError(path, [f"not valid YAML: {_reason(err)}"]) from err
    if not OmegaConf.is_dict(config):
        raise ConfigError(path, ["must hold a mapping of keys, but holds a list."])
    return _plain(config)


def _reason(err: Exception) -> str:
    """Returns the message of a parser in one line."""
    if isinstance(err, RecursionError):
        return "an anchor (`&`) holds itself, or brackets nest too deep."
    words = str(err).split()
    return " ".join(words) + "."


def _plain(config: Any, *, resolve: bool = False) -> Values:
    """Returns a mapping of OmegaConf as plain values."""
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


def value_at(values: Any, path: str) -> Any:
    """Returns the value of a dotted key. A missing key is None."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def parse_overrides(overrides: Sequence[str]) -> tuple[Values, list[str]]:
    """Returns texts such as `a.b=value` (values are YAML) as one mapping, and all mistakes."""
    values: Values = {}
    problems = []
    for override in overrides:
        path, equals, _ = override.partition("=")
        keys = path.split(".")
        if keys[0] == "includes":
            reason = "comes too late: `includes` is read from files only"
            problems.append(f"the override `{override}` {reason}.")
            continue
        if not equals or not all(keys):
            problems.append(
                f"the override `{override}` must have the form `section.key=value`."
            )
            continue
        try:
            parsed = _lifted(_plain(OmegaConf.from_dotlist([override])))
            values = _plain(OmegaConf.merge(values, parsed))
        except YAML_ERRORS as err:
            reason = _reason(err)
            problems.append(
                f"the value of the override `{override}` is not YAML: {reason}"
            )
    return values, problems


def write_yaml(path: str | Path, values: Values) -> None:
    """Writes a mapping as YAML, in its own order, atomically.

    `read_yaml` reads the same mapping.
    """
    text = to_yaml(values)
    with atomic_write(path) as file:
        file.write(text)


def to_yaml(values: Values, width: float = 80) -> str:
    """Returns a mapping as the text of a YAML file; see `write_yaml`.

    Args:
        width: column after which long text is wrapped.
    """
    escaped = _escape_interpolations(values)
    return yaml.dump(
        escaped,
        Dumper=_QuotingDumper,
        sort_keys=False,
        allow_unicode=True,
        width=width,
    )


class _QuotingDumper(yaml.SafeDumper):
    """A writer of YAML that quotes all text that a reader could take for something else.

    PyYAML writes the text `1e5` without quotes, because its own reader takes it for text.
    OmegaConf's reader takes it for a number.
    """


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _PLAIN_TEXT.fullmatch(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_QuotingDumper.add_representer(str, _represent_text)


def _escape_interpolations(value: Any) -> Any:
    """Returns a value in which `${` is written as OmegaConf's escape, `\\${`, in all texts."""
    if isinstance(value, dict):
        return {key: _escape_interpolations(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape_interpolations(item) for item in value]
    if isinstance(value, str):
        # OmegaConf reads two backslashes in front of `${` as one.
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value
