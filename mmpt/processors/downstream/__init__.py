"""Processors of the downstream sets; importing this package registers them all."""

from mmpt.processors.downstream.base import DSAligner, TextProcessor, VideoProcessor
from mmpt.processors.downstream.coin import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
)
from mmpt.processors.downstream.crosstask import (
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
)
from mmpt.processors.downstream.didemo import DiDeMoAligner, DiDeMoMetaProcessor, DiDeMoTextProcessor
from mmpt.processors.downstream.how2_clips import (
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    How2FullVideoMetaProcessor,
    How2VideoProcessor,
)
from mmpt.processors.downstream.how2align import (
    How2AlignAligner,
    How2AlignMetaProcessor,
    How2AlignTextProcessor,
)
from mmpt.processors.downstream.msrvtt import (
    MSRVTTMetaProcessor,
    MSRVTTQAAligner,
    MSRVTTQAMetaProcessor,
    MSRVTTQATextProcessor,
    MSRVTTTextProcessor,
)
from mmpt.processors.downstream.youcook import (
    YoucookFullVideoBGAligner,
    YoucookFullVideoBGMetaProcessor,
    YoucookFullVideoBGProcessor,
    YoucookFullVideoBGTextProcessor,
    YoucookMetaProcessor,
    YoucookVideoProcessor,
)

__all__ = [
    "COINActionSegmentationAligner",
    "COINActionSegmentationMetaProcessor",
    "COINActionSegmentationTextProcessor",
    "CrossTaskAligner",
    "CrossTaskMetaProcessor",
    "CrossTaskTextProcessor",
    "CrossTaskVideoProcessor",
    "DSAligner",
    "DiDeMoAligner",
    "DiDeMoMetaProcessor",
    "DiDeMoTextProcessor",
    "How2AlignAligner",
    "How2AlignMetaProcessor",
    "How2AlignTextProcessor",
    "How2ClipMetaProcessor",
    "How2ClipVideoProcessor",
    "How2FullVideoMetaProcessor",
    "How2VideoProcessor",
    "MSRVTTMetaProcessor",
    "MSRVTTQAAligner",
    "MSRVTTQAMetaProcessor",
    "MSRVTTQATextProcessor",
    "MSRVTTTextProcessor",
    "TextProcessor",
    "VideoProcessor",
    "YoucookFullVideoBGAligner",
    "YoucookFullVideoBGMetaProcessor",
    "YoucookFullVideoBGProcessor",
    "YoucookFullVideoBGTextProcessor",
    "YoucookMetaProcessor",
    "YoucookVideoProcessor",
]
