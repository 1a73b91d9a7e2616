"""Reads a YAML file and overrides as a checked `RunConfig`. All mistakes come in one message."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import create_model

from mmpt.config.checks import check_whole, inert_keys
from mmpt.config.fairseq import settings_model
from mmpt.config.mistakes import validate
from mmpt.config.released import fill_released
from mmpt.config.run import RunConfig
from mmpt.config.schema import RetrievalConfig
from mmpt.config.sections import section_models
from mmpt.config.yaml_files import (
    parse_overrides,
    read_without_includes,
    read_yaml,
    value_at,
    write_yaml,
)
from mmpt.errors import ConfigError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

JOB_FILE = (
    "`base_dir` makes this a job file, which is no longer expanded. Give the YAMLs of its "
    "`task_list` to the launcher, joined by commas: `locallaunch.py a.yaml,b.yaml`."
)


def load_config(
    path: str | Path, overrides: Sequence[str] = (), *, import_fairseq: bool = True
) -> RunConfig:
    """Reads a YAML file with its includes, puts overrides on top and checks everything.

    Args:
        path: the YAML file.
        overrides: texts such as `dataset.max_len=48`; the value is YAML.
        import_fairseq: compare `fairseq:` with fairseq's options, if it is installed.
    Raises:
        ConfigError: with every mistake found.
    """
    # Read the file as plain values. A mistake in the syntax of a file ends the checks here.
    override_values, problems = parse_overrides(overrides)
    written = read_yaml(path, override_values)
    values, filled = fill_released(written)
    if values.get("base_dir") is not None:
        raise ConfigError(str(path), [JOB_FILE])
    # Check each key by itself. The classes that the file names decide which keys are known.
    models = section_models(values)
    good, mistakes = validate(_whole_model(models, import_fairseq), values)
    for section in good.keys() & models.keys():
        good[section] = models[section](**good[section])
    if "dataset" in good and "model" in good:
        width = good["model"].input_dim
        good["dataset"] = good["dataset"].replace(feature_dim=width)
    # The keys of retrieval are at the top level of a file, and in a section of the config.
    at_top = good.keys() & RetrievalConfig.model_fields.keys()
    retrieval = {key: good.pop(key) for key in at_top}
    config = RunConfig(**{"retrieval": retrieval, **good, "path": str(path)})
    # Check keys against each other. In `config`, an invalid key has its default.
    problems += [*mistakes, *check_whole(config, values)]
    if problems:
        raise ConfigError(str(path), problems)
    if filled:
        keys = ", ".join(filled)
        logger.info("%s: filled in as the released script does: %s", path, keys)
    # Name only the inert keys that the user has set. A released file that is included has many.
    own = (override_values, read_without_includes(path))
    inert = []
    for key in inert_keys(config):
        if any(value_at(values, key) is not None for values in own):
            inert.append(key)
    if inert:
        logger.info("%s: these keys have no effect here: %s", path, ", ".join(inert))
    return config


def _whole_model(models: dict[str, Any], import_fairseq: bool) -> Any:
    """Returns the pydantic model of a YAML file, given the models of its sections."""
    fields: dict[str, Any] = {name: (model, model()) for name, model in models.items()}
    fields["loss"] = (models["loss"] | None, None)
    base = settings_model(import_fairseq=import_fairseq)
    return create_model("YamlFile", __base__=base, **fields)


def save_resolved(config: RunConfig, path: str | Path) -> None:
    """Writes a YAML file, atomically, that `load_config` reads as the same config."""
    write_yaml(path, config.to_dict())


def with_run_dir(config: RunConfig) -> RunConfig:
    """Returns a copy whose `tensorboard_logdir` is a new folder in `save_dir`.

    A value with a `/` is kept. Otherwise, with `tensorboard` in `loggers`, the option is removed,
    because fairseq would write a second set of curves.
    """
    name = config.option("common", "tensorboard_logdir")
    if name is None or "/" in name:
        return config
    if "tensorboard" in (config.loggers or ()):
        return config.with_option("common", "tensorboard_logdir", None)
    return config.with_option(
        "common", "tensorboard_logdir", next_run_dir(config.save_dir, name)
    )


def next_run_dir(save_dir: str, name: str) -> str:
    """Returns `<save_dir>/<name>_<k>`, where k is the largest index there + 1, or 0.

    Entries that start with `name` have an index: the number after the next underscore, or 0 without
    an underscore. Entries such as `run_foo` have none.
    """
    pattern = re.compile(rf"{re.escape(name)}[^_]*(?:_(\d+)(?=_|$)|$)")
    last = -1
    for entry in os.listdir(save_dir) if os.path.isdir(save_dir) else []:
        found = pattern.match(entry)
        if found:
            index = int(found[1] or 0)
            last = max(last, index)
    return os.path.join(save_dir, f"{name}_{last + 1}")
