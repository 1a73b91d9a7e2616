"""The registry of models: a YAML names a class of it, or a torch module of the user's with the same
methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from mmpt.registry import Registry

if TYPE_CHECKING:
    from mmpt.models.mmfusion import MMFusionSeparate

MODELS: Registry[MMFusionSeparate] = Registry("model", nn.Module, "mmpt.models")
