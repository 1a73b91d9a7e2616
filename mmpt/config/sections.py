"""The keys of `dataset`, `model` and `loss`. They belong to the classes that a YAML names.

Every section has some keys that all classes share (`DatasetConfig`, `ModelConfig`, `LossConfig`). A
class that reads further keys declares them in a class attribute `Config`, a subclass of these:

    class MarginLoss(Loss):
        class Config(LossConfig):
            margin: float = 0.5
            \"\"\"Wanted difference of scores.\"\"\"

The section of a run is an instance of the `Config` of every class that reads it. So each class
takes the same section, and finds its own keys in it.
"""

from functools import cache
from pkgutil import resolve_name
from typing import Any

from pydantic import create_model

from mmpt.config.schema import DatasetConfig, LossConfig, ModelConfig, Section
from mmpt.config.yaml_files import value_at
from mmpt.errors import ConfigError

SHARED: dict[str, type[Section]] = {
    "dataset": DatasetConfig,
    "model": ModelConfig,
    "loss": LossConfig,
}
READERS = {
    "dataset": {
        "dataset.meta_processor": "mmpt.processors:META_PROCESSORS",
        "dataset.video_processor": "mmpt.processors:VIDEO_PROCESSORS",
        "dataset.text_processor": "mmpt.processors:TEXT_PROCESSORS",
        "dataset.aligner": "mmpt.processors:ALIGNERS",
        "task": "mmpt.tasks:TASKS",
        "predictor": "mmpt.evaluators:PREDICTORS",
    },
    "model": {"model.model_cls": "mmpt.models:MODELS"},
    "loss": {"loss.loss_cls": "mmpt.losses:LOSSES"},
}
"""Section -> keys that name the classes which read it -> their registry. Registries are found by
name, because their packages import this one."""
SHIPPED = {
    "task": {
        "Task": "mmpt.config:DatasetConfig",
        "RetriTask": "mmpt.processors:VariedLenAligner.Config",
        "VideoRetriTask": "mmpt.processors:VariedLenAligner.Config",
    },
    "model.model_cls": {
        "MMFusionSeparate": "mmpt.config:ModelConfig",
        "MMFusionSeparateActionLocalization": "mmpt.config:ModelConfig",
        "MMFusionSeparateActionSegmentation": "mmpt.config:ModelConfig",
        "MMFusionSeparateFullVideoBGRetrieval": "mmpt.config:ModelConfig",
    },
}
"""Name of a shipped task or model -> its `Config`. Importing the class itself takes seconds, and
would delay the message about a mistake in a YAML."""


class AnyKeys(Section, extra="allow"):
    """A section that accepts all keys. It stands for a class that is not found."""


def section_models(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the model of each section for the classes that a YAML names.

    Args:
        values: the YAML as plain values.
    """
    models = {}
    for section, registries in READERS.items():
        configs = [SHARED[section]]
        if isinstance(values.get(section), dict):
            for key, place in registries.items():
                configs += _configs_for(section, key, place, value_at(values, key))
        # pydantic takes the settings of a model from its last base.
        configs.sort(key=lambda config: config is AnyKeys)
        models[section] = joined(*dict.fromkeys(configs))
    return models


def _configs_for(section: str, key: str, place: str, name: Any) -> list[type[Section]]:
    """Returns the `Config` of the class that `key` names.

    If the class is not found, `AnyKeys` accepts all keys, and the name is reported later, when the
    classes of the run are looked up. If a required name is missing, the keys of all registered
    classes are accepted.

    Args:
        place: place of the registry of the classes, as in `READERS`.
        name: the value of `key`.
    """
    if not isinstance(name, str):
        is_optional = not key.startswith(section)  # a run may have no task or predictor
        return [] if is_optional else list(_known_configs(section, key, place).values())
    shipped = SHIPPED.get(key, {})
    if name in shipped:
        return [resolve_name(shipped[name])]
    registry = resolve_name(place)
    try:
        cls = registry.get(name, key)
    except ConfigError:
        return [AnyKeys]
    return [config_of(section, cls)]


def config_of(section: str, cls: Any) -> Any:
    """Returns the section that a class declares, or the shared one.

    Raises:
        ConfigError: `Config` does not have the shared keys, or a key has no default.
    """
    shared = SHARED[section]
    config = getattr(cls, "Config", shared)
    name = f"{cls.__name__}.Config"
    if not (isinstance(config, type) and issubclass(config, shared)):
        base = f"mmpt.config.{shared.__name__}"
        raise ConfigError(
            section, [f"`{name}` must be a subclass of `{base}`, but is {config!r}."]
        )
    for key, field in config.model_fields.items():
        if field.is_required():
            rule = f"must have a default for each key, such as None, but has none for `{key}`"
            raise ConfigError(section, [f"`{name}` {rule}."])
    return config


class _Joined(Section):
    """A section with the keys of several classes.

    Its class is made at run time and belongs to no module. So it is pickled as a list of its bases.
    """

    def __reduce__(self) -> Any:
        return _restore, (type(self).__bases__[1:], dict(self))


def _restore(configs: tuple[type[Section], ...], values: dict[str, Any]) -> Any:
    return joined(*configs)(**values)


def joined(*configs: type[Section]) -> Any:
    """Returns a section that has the keys of all `configs`."""
    # Leave out classes that have a subclass among the others. They add no keys, and Python refuses
    # a base class in front of its subclass.
    bases = list(configs)
    for config in configs:
        others = [other for other in configs if other is not config]
        if any(issubclass(other, config) for other in others):
            bases.remove(config)
    return bases[0] if len(bases) == 1 else _subclass(tuple(bases))


@cache  # the same bases give the same class, so that equal sections are equal
def _subclass(bases: tuple[type[Section], ...]) -> Any:
    return create_model("JoinedConfig", __base__=(_Joined, *bases))


def readers_of(section: str, key: str) -> list[str]:
    """Returns the names of all registered classes that read `key` of a section, sorted."""
    names = []
    for naming_key, place in READERS.get(section, {}).items():
        for name, config in _known_configs(section, naming_key, place).items():
            if key in config.model_fields:
                names.append(name)
    return sorted(names)


def _known_configs(section: str, key: str, place: str) -> dict[str, type[Section]]:
    """Returns the section of each registered class, by the name of the class.

    Args:
        key: the key that names one of the classes.
        place: place of their registry.
    """
    if key in SHIPPED:
        return {name: resolve_name(config) for name, config in SHIPPED[key].items()}
    registry = resolve_name(place)
    return {
        name: config_of(section, registry.get(name, section)) for name in list(registry)
    }
