"""Models: the two towers, their checkpoints, S3D, and `MMPTModel`, which embeds videos and texts."""

from mmpt.models.base import MODELS
from mmpt.models.heads import (
    MMFusionSeparateActionLocalization,
    MMFusionSeparateActionSegmentation,
    MMFusionSeparateFullVideoBGRetrieval,
)
from mmpt.models.mmfusion import MMFusionSeparate
from mmpt.models.mmptmodel import MMPTModel
from mmpt.models.s3d import S3D, load_s3d
from mmpt.models.video_bert import MMBertForEncoder, MMBertForTokenClassification
from mmpt.modules import MMBertEmbeddings, VideoTokenMLP

__all__ = [
    "MODELS",
    "S3D",
    "MMBertEmbeddings",
    "MMBertForEncoder",
    "MMBertForTokenClassification",
    "MMFusionSeparate",
    "MMFusionSeparateActionLocalization",
    "MMFusionSeparateActionSegmentation",
    "MMFusionSeparateFullVideoBGRetrieval",
    "MMPTModel",
    "VideoTokenMLP",
    "load_s3d",
]
