from .data import How2AlignAligner, How2AlignMetaProcessor, How2AlignTextProcessor
from .evaluation import How2AlignMetric, How2AlignOutputs, How2AlignPredictor

__all__ = [
    "How2AlignAligner",
    "How2AlignMetaProcessor",
    "How2AlignMetric",
    "How2AlignOutputs",
    "How2AlignPredictor",
    "How2AlignTextProcessor",
]
