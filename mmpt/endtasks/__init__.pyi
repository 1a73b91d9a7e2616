from .coin.data import (
    COINActionSegmentationAligner,
    COINActionSegmentationMetaProcessor,
    COINActionSegmentationTextProcessor,
)
from .coin.evaluation import (
    COINActionSegmentationMetric,
    COINPredictor,
    COINZSPredictor,
    SegmentationOutputs,
)
from .crosstask.data import (
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
)
from .crosstask.evaluation import CrossTaskMetric, CrossTaskPredictor, LocalisationOutputs
from .didemo.data import DiDeMoAligner, DiDeMoMetaProcessor, DiDeMoTextProcessor
from .didemo.evaluation import DiDeMoMetric, DiDeMoPredictor, MomentOutputs
from .how2_clips import (
    How2ClipMetaProcessor,
    How2ClipVideoProcessor,
    How2FullVideoMetaProcessor,
    How2VideoProcessor,
)
from .how2align.data import How2AlignAligner, How2AlignMetaProcessor, How2AlignTextProcessor
from .how2align.evaluation import How2AlignMetric, How2AlignOutputs, How2AlignPredictor
from .msrvtt import MSRVTTMetaProcessor, MSRVTTTextProcessor
from .msrvtt_qa import (
    MSRVTTQAAligner,
    MSRVTTQAMetaProcessor,
    MSRVTTQATextProcessor,
    QAMetric,
    QAOutputs,
    QAPredictor,
)
from .youcook import (
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
    "COINActionSegmentationMetric",
    "COINActionSegmentationTextProcessor",
    "COINPredictor",
    "COINZSPredictor",
    "CrossTaskAligner",
    "CrossTaskMetaProcessor",
    "CrossTaskMetric",
    "CrossTaskPredictor",
    "CrossTaskTextProcessor",
    "CrossTaskVideoProcessor",
    "DiDeMoAligner",
    "DiDeMoMetaProcessor",
    "DiDeMoMetric",
    "DiDeMoPredictor",
    "DiDeMoTextProcessor",
    "How2AlignAligner",
    "How2AlignMetaProcessor",
    "How2AlignMetric",
    "How2AlignOutputs",
    "How2AlignPredictor",
    "How2AlignTextProcessor",
    "How2ClipMetaProcessor",
    "How2ClipVideoProcessor",
    "How2FullVideoMetaProcessor",
    "How2VideoProcessor",
    "LocalisationOutputs",
    "MSRVTTMetaProcessor",
    "MSRVTTQAAligner",
    "MSRVTTQAMetaProcessor",
    "MSRVTTQATextProcessor",
    "MSRVTTTextProcessor",
    "MomentOutputs",
    "QAMetric",
    "QAOutputs",
    "QAPredictor",
    "SegmentationOutputs",
    "YoucookFullVideoBGAligner",
    "YoucookFullVideoBGMetaProcessor",
    "YoucookFullVideoBGProcessor",
    "YoucookFullVideoBGTextProcessor",
    "YoucookMetaProcessor",
    "YoucookVideoProcessor",
]
