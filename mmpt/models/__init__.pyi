from .bert import MMBertForEncoder, MMBertForTokenClassification
from .heads import (
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from .mmfusion import MODELS, MMFusionSeparate

__all__ = [
    "MODELS",
    "MMBertForEncoder",
    "MMBertForTokenClassification",
    "MMFusionSeparate",
    "MMFusionSeparateActionLocalization",
    "MMFusionSeparateActionSegmentation",
    "MMFusionSeparateFullVideoBGRetrieval",
]
