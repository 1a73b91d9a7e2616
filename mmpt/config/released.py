"""The settings that released YAMLs leave out because the release has them in a script.

A benchmark lists its own in `mmpt/endtasks/<benchmark>/released.yaml`.
"""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import mmpt
from mmpt.config.yaml_files import read_yaml

BATCH_SIZE = "fairseq.dataset.batch_size"
CHECKPOINT = "fairseq.common_eval.path"


def fill_released(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns a YAML with the settings that it leaves out, and the added ones as `key: value`.

    Only evaluations that have the key `only_with` of a `released.yaml` get its settings. They also
    get a checkpoint, `checkpoint_best.pt` in `eval.save_path`. A YAML without a meta processor gets
    a batch size of 1, because the released script takes one video at a time.

    Args:
        values: a YAML with includes and overrides. It is not changed.
    """
    dataset = values.get("dataset")
    if not isinstance(dataset, dict) or dataset.get("split") != "test":
        return values, []
    given = OmegaConf.create(values)
    for path in sorted((Path(mmpt.__file__).parent / "endtasks").glob("*/released.yaml")):
        released = read_yaml(path)
        if OmegaConf.select(given, released["only_with"]) is not None:
            return _filled(given, released["settings"])
    return values, []


def _filled(given: DictConfig, released: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of `given` on top of `released`, and the added ones as `key: value`."""
    settings = _leaves(released)
    save_path = OmegaConf.select(given, "eval.save_path")
    if isinstance(save_path, str):
        settings[CHECKPOINT] = os.path.join(save_path, "checkpoint_best.pt")
    added, missing = [], OmegaConf.create()
    no_meta_processor = OmegaConf.select(given, "dataset.meta_processor") is None
    if no_meta_processor and OmegaConf.select(given, BATCH_SIZE) is not None:
        OmegaConf.update(given, BATCH_SIZE, 1)
        added.append(f"{BATCH_SIZE}: 1")
    for key, value in settings.items():
        if OmegaConf.select(given, key) is None:
            OmegaConf.update(missing, key, value)
            added.append(f"{key}: {value}")
    # A section of `given` that is no mapping stays as it is, so that the loader reports it.
    whole: Any = OmegaConf.to_container(OmegaConf.merge(missing, given))
    return whole, added


def _leaves(values: dict[str, Any], at: str = "") -> dict[str, Any]:
    """Returns the values that are no mappings, by their dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{at}{key}.")
        else:
            leaves[at + key] = value
    return leaves
