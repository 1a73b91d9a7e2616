from .data import MSRVTTQAAligner, MSRVTTQAMetaProcessor, MSRVTTQATextProcessor
from .evaluation import QAMetric, QAOutputs, QAPredictor

__all__ = [
    "MSRVTTQAAligner",
    "MSRVTTQAMetaProcessor",
    "MSRVTTQATextProcessor",
    "QAMetric",
    "QAOutputs",
    "QAPredictor",
]
