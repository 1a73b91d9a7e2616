from .data import (
    CrossTaskAligner,
    CrossTaskMetaProcessor,
    CrossTaskTextProcessor,
    CrossTaskVideoProcessor,
)
from .evaluation import CrossTaskMetric, CrossTaskPredictor, LocalisationOutputs

__all__ = [
    "CrossTaskAligner",
    "CrossTaskMetaProcessor",
    "CrossTaskMetric",
    "CrossTaskPredictor",
    "CrossTaskTextProcessor",
    "CrossTaskVideoProcessor",
    "LocalisationOutputs",
]
