"""Models: the two towers and their checkpoints. A YAML names a class of `MODELS`, or its own with the same methods."""

from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.registry import Registry

MODELS: Registry[MMFusionSeparate] = Registry("model")
MODELS.register(MMFusionSeparate)

__all__ = ["MODELS", "MMFusionSeparate"]
