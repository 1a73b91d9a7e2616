from .heads import (
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from .mmfusion import MODELS, MMFusionSeparate
from .video_bert import MMBertForEncoder, MMBertForTokenClassification

__all__ = [
    "MODELS",
    "MMBertForEncoder",
    "MMBertForTokenClassification",
    "MMFusionSeparate",
    "MMFusionSeparateActionLocalization",
    "MMFusionSeparateActionSegmentation",
    "MMFusionSeparateFullVideoBGRetrieval",
]
