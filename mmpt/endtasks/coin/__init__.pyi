from .data import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
)
from .evaluation import (
    COINActionSegmentationMetric,
    COINPredictor,
    COINZSPredictor,
    SegmentationOutputs,
)

__all__ = [
    "COINActionSegmentationAligner",
    "COINActionSegmentationMetaProcessor",
    "COINActionSegmentationMetric",
    "COINActionSegmentationTextProcessor",
    "COINPredictor",
    "COINZSPredictor",
    "SegmentationOutputs",
]
