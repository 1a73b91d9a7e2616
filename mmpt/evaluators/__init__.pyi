from .base import METRICS, PREDICTORS, BatchLoader, Metric, Number, Outputs, Predictor, Results
from .evaluator import (
    Evaluator,
    FingerprintingLoader,
    check_results,
    file_fingerprint,
    read_results,
    save_predictions,
    write_results,
)
from .metrics import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric, RetrievalMetric
from .outputs import BGRetrievalOutputs, ClipId, RetrievalOutputs
from .predictors import BGRetrievalPredictor, RetrievalPredictor
from .table import render_markdown, render_table

__all__ = [
    "METRICS",
    "PREDICTORS",
    "BGRetrievalOutputs",
    "BGRetrievalPredictor",
    "BatchLoader",
    "ClipId",
    "Evaluator",
    "FingerprintingLoader",
    "FullVideoBGRetrievalMetric",
    "FullVideoRetrievalMetric",
    "Metric",
    "Number",
    "Outputs",
    "Predictor",
    "Results",
    "RetrievalMetric",
    "RetrievalOutputs",
    "RetrievalPredictor",
    "check_results",
    "file_fingerprint",
    "read_results",
    "render_markdown",
    "render_table",
    "save_predictions",
    "write_results",
]
