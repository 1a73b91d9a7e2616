from .data import DiDeMoAligner, DiDeMoMetaProcessor, DiDeMoTextProcessor
from .evaluation import DiDeMoMetric, DiDeMoPredictor, MomentOutputs

__all__ = [
    "DiDeMoAligner",
    "DiDeMoMetaProcessor",
    "DiDeMoMetric",
    "DiDeMoPredictor",
    "DiDeMoTextProcessor",
    "MomentOutputs",
]
