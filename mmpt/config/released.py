"""The settings that released YAMLs leave out because the release has them in a script.

A benchmark lists its own in `mmpt/endtasks/<benchmark>/released.yaml`.
"""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmpt
from mmpt.config.yaml_files import Values, read_yaml, value_at

BATCH_SIZE = "fairseq.dataset.batch_size"
CHECKPOINT = "fairseq.common_eval.path"


def fill_released(values: Values) -> tuple[Values, list[str]]:
    """Fills in the settings that a released evaluation YAML leaves out.

    A YAML gets the settings of a `released.yaml` if it has the key that this file names in
    `only_with`. It also gets a checkpoint, `checkpoint_best.pt` in `eval.save_path`. A YAML without
    a meta processor gets a batch size of 1, because the released script takes one video at a time.

    Args:
        values: a YAML with includes and overrides. It is not changed.
    Returns:
        The YAML with all settings, and the added settings as texts `key: value`.
    """
    if value_at(values, "dataset.split") != "test":
        return values, []
    endtasks = Path(mmpt.__file__).parent / "endtasks"
    for path in sorted(endtasks.glob("*/released.yaml")):
        released = read_yaml(path)
        if value_at(values, released["only_with"]) is not None:
            return _filled(values, released["settings"])
    return values, []


def _filled(given: Values, released: Values) -> tuple[Values, list[str]]:
    """Returns the values of `given` on top of `released`, and the added ones as `key: value`."""
    settings = _leaves(released)
    save_path = value_at(given, "eval.save_path")
    if isinstance(save_path, str):
        settings[CHECKPOINT] = os.path.join(save_path, "checkpoint_best.pt")
    whole = deepcopy(given)
    added = []
    meta_processor = value_at(given, "dataset.meta_processor")
    batch_size = value_at(given, BATCH_SIZE)
    if meta_processor is None and batch_size is not None:
        whole["fairseq"]["dataset"]["batch_size"] = 1
        added.append(f"{BATCH_SIZE}: 1")
    for key, value in settings.items():
        if value_at(given, key) is None:
            _put(whole, key, value)
            added.append(f"{key}: {value}")
    return whole, added


def _put(values: Values, path: str, value: Any) -> None:
    """Sets the value of a dotted key.

    A section that is not a mapping stays as it is, so that the loader reports it.
    """
    *sections, last = path.split(".")
    for key in sections:
        if values.get(key) is None:
            values[key] = {}
        values = values[key]
        if not isinstance(values, dict):
            return
    values[last] = value


def _leaves(values: Values, at: str = "") -> Values:
    """Returns all values except for mappings, by their dotted keys."""
    leaves: Values = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{at}{key}.")
        else:
            leaves[at + key] = value
    return leaves
