"""The origin of each setting of a run: a line of a YAML file, an override, or a default."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from mmpt.config.released import fill_released
from mmpt.config.yaml_files import Values, parse_overrides, read_yaml

Key = tuple[str, ...]
"""The path of a key: ("dataset", "max_len"). Names may contain dots."""
Kind = Literal["mapping", "null", "value"]
Layer = dict[Key, tuple[Kind, str]]
"""Keys that a file or an override sets: their kind, and the origin as text."""
DEFAULT, OVERRIDE = "default", "override"


def leaves(values: Values, at: Key = ()) -> dict[Key, Any]:
    """Returns all values except for non-empty mappings, by the paths of their keys."""
    found: dict[Key, Any] = {}
    for name, value in values.items():
        key = (*at, str(name))
        if isinstance(value, dict) and value:
            found |= leaves(value, key)
        else:
            found[key] = value
    return found


def key_lines(text: str) -> dict[Key, tuple[Kind, int]]:
    """Returns the kind of each key in the text of a YAML file, and its line, from 1.

    A key of a merged mapping (`<<: *name`) has the line where the mapping is written.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        return dict(_walk(loader, node, ())) if node else {}
    finally:
        loader.dispose()


def _walk(
    loader: yaml.SafeLoader, node: yaml.Node, at: Key
) -> Iterator[tuple[Key, tuple[Kind, int]]]:
    if not isinstance(node, yaml.MappingNode):
        return
    loader.flatten_mapping(node)  # resolves `<<`
    for name, value in node.value:
        key = (*at, str(name.value))
        kind: Kind = "value"
        if isinstance(value, yaml.MappingNode):
            kind = "mapping"
        elif value.tag == "tag:yaml.org,2002:null":
            kind = "null"
        yield key, (kind, name.start_mark.line + 1)
        yield from _walk(loader, value, key)


def find_origins(
    path: str | Path, overrides: Sequence[str], settings: Values
) -> dict[Key, str]:
    """Returns the origin of each setting of a run.

    Args:
        path: the YAML file, which `load_config` has accepted together with `overrides`.
        overrides: texts such as `dataset.max_len=48`.
        settings: the settings of the run, defaults included.
    """
    layers = [_released_layer(path, overrides)]
    for override in reversed(overrides):  # the last one counts
        layers.append(_override_layer(override))
    layers += _file_layers(str(path))
    return {key: _origin(key, layers) for key in leaves(settings)}


def _origin(key: Key, layers: Sequence[Layer]) -> str:
    """Returns the origin of a key in the first layer that sets it.

    If a layer replaces a section by something else, later layers have no effect on the section.
    """
    for layer in layers:
        # Follow the path from the top-level section down to the key.
        for length in range(1, len(key) + 1):
            is_key = length == len(key)
            kind, origin = layer.get(key[:length], ("mapping", ""))
            if kind == "null" or (kind == "value" and not is_key):
                return DEFAULT  # the key, or a section that contains it, was unset
            if kind == "value" or (origin and is_key):  # the latter: an empty mapping
                return origin
    return DEFAULT


def _released_layer(path: str | Path, overrides: Sequence[str]) -> Layer:
    """Returns the settings that are filled in for old evaluation YAMLs."""
    override_values, _ = parse_overrides(overrides)
    _, filled = fill_released(read_yaml(path, override_values))
    layer: Layer = {}
    for text in filled:
        key, _, _ = text.partition(": ")
        layer[tuple(key.split("."))] = ("value", "as in the released script")
    return layer


def _override_layer(override: str) -> Layer:
    values, _ = parse_overrides([override])
    layer: Layer = {}
    for key, value in leaves(values).items():
        layer[key] = ("null" if value is None else "value", OVERRIDE)
    return layer


def _file_layers(path: str) -> Iterator[Layer]:
    """Yields the keys of a file, and then the keys of each file that it includes."""
    is_included = False
    while path:
        text = Path(path).read_text(encoding="utf-8")
        lines = key_lines(text)
        suffix = " (included)" if is_included else ""
        layer: Layer = {}
        for key, (kind, line) in lines.items():
            # The keys of `retrieval` may be in a section, or at the top level.
            lifted = key[1:] if key[0] == "retrieval" and len(key) > 1 else key
            layer[lifted] = (kind, f"{path}:{line}{suffix}")
        yield layer
        path = str((yaml.safe_load(text) or {}).get("includes") or "")
        is_included = True
