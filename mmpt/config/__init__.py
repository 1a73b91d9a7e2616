"""YAML files as typed, frozen settings. All mistakes are found before data or a GPU is touched."""

from mmpt.config.loader import load_config, save_resolved
from mmpt.config.run import RunConfig
from mmpt.config.schema import (
    DatasetConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    RetrievalConfig,
    SequenceContrastConfig,
    SlurmConfig,
)

__all__ = [
    "DatasetConfig",
    "EvalConfig",
    "LossConfig",
    "ModelConfig",
    "RetrievalConfig",
    "RunConfig",
    "SequenceContrastConfig",
    "SlurmConfig",
    "load_config",
    "save_resolved",
]
