"""`load_config`: a YAML file and overrides to a checked `RunConfig`; all mistakes come out in one message."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from mmpt.config.checks import check_whole, inert_keys
from mmpt.config.parse import INERT_TOP_LEVEL, parse
from mmpt.config.released import fill_htm_align
from mmpt.config.run import RunConfig
from mmpt.config.yaml_files import merge, parse_overrides, read_yaml, write_yaml
from mmpt.errors import ConfigError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

JOB_FILE = (
    "`base_dir` makes this a job file, which is no longer expanded. Give the YAMLs of its "
    "`task_list` to the launcher, joined by commas: `locallaunch.py a.yaml,b.yaml`."
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML file, stack its includes, put overrides on top and check everything.

    Args:
        path: the YAML file.
        overrides: texts such as `dataset.max_len=48`; the value is YAML.
    Raises:
        ConfigError: with every mistake found.
    """
    override_values, problems = parse_overrides(overrides)
    values, filled = fill_htm_align(merge(read_yaml(path), override_values))
    if values.get("base_dir") is not None:
        raise ConfigError(str(path), [JOB_FILE])
    config, parse_problems = parse(values, str(path))
    problems += parse_problems + check_whole(config, values)
    if problems:
        raise ConfigError(str(path), problems)
    if filled:
        logger.info("%s: filled in as the released HTM-Align script does: %s", path, ", ".join(filled))
    if inert := inert_keys(config, values, INERT_TOP_LEVEL):
        logger.info("%s: these keys have no effect here: %s", path, ", ".join(inert))
    return _divide_batch_size(config)


def _divide_batch_size(config: RunConfig) -> RunConfig:
    """Divide fairseq's batch size by `dataset.subsampling`, once in a config's life."""
    size, subsampling = config.option("dataset", "batch_size"), config.dataset.subsampling
    if not config.resolved and size is not None and subsampling is not None and subsampling > 1:
        logger.info("batch_size is %d: %d divided by subsampling %d", size // subsampling, size, subsampling)
        config = config.with_option("dataset", "batch_size", size // subsampling)
    return dataclasses.replace(config, resolved=True)


def save_resolved(config: RunConfig, path: str | Path) -> None:
    """Write `config` as a YAML file of its own, atomically; `load_config` reads it back with the same meaning."""
    write_yaml(path, config.to_dict())


def with_run_dir(config: RunConfig) -> RunConfig:
    """Return a copy whose `tensorboard_logdir` is a fresh folder in `save_dir`; a value with a `/` stays as it is."""
    name = config.option("common", "tensorboard_logdir")
    if name is None or "/" in name:
        return config
    return config.with_option("common", "tensorboard_logdir", next_run_dir(config.save_dir, name))


def next_run_dir(save_dir: str, name: str) -> str:
    """Return `<save_dir>/<name>_<k>`, k being one more than the largest index there, or 0 when there is none.

    An entry counts when it starts with `name`: its index is the number after the next underscore, or 0 without one;
    entries such as `run_foo` do not count.
    """
    indices = []
    for entry in os.listdir(save_dir) if os.path.isdir(save_dir) else []:
        if entry.startswith(name):
            _, underscore, index = entry[len(name) :].partition("_")
            number = re.match(r"\d+(?=_|$)", index)
            if number or not underscore:
                indices.append(int(number.group()) if number else 0)
    return os.path.join(save_dir, f"{name}_{max(indices) + 1 if indices else 0}")
