"""The registry of models: a YAML names a class of it, or a torch module of the user's with the same methods."""

from torch import nn

from mmpt.models.heads import (
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.registry import Registry

MODELS: Registry[MMFusionSeparate] = Registry("model", nn.Module)
MODELS.register(MMFusionSeparate)
MODELS.register(MMFusionSeparateFullVideoBGRetrieval)
MODELS.register(MMFusionSeparateActionSegmentation)
MODELS.register(MMFusionSeparateActionLocalization)
