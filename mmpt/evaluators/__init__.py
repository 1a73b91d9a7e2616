"""Evaluation: pure metrics, the predictors that feed them, and the rows and tables that report them."""

from mmpt.evaluators.base import METRICS, PREDICTORS, BatchLoader, Metric, Number, Outputs, Predictor, Results
from mmpt.evaluators.evaluator import (
    Evaluator,
    FingerprintingLoader,
    file_fingerprint,
    read_results,
    save_predictions,
    write_results,
)
from mmpt.evaluators.metrics import FullVideoRetrievalMetric, RetrievalMetric
from mmpt.evaluators.outputs import ClipId, RetrievalOutputs
from mmpt.evaluators.predictors import RetrievalPredictor
from mmpt.evaluators.table import render_markdown, render_table

__all__ = [
    "METRICS",
    "PREDICTORS",
    "BatchLoader",
    "ClipId",
    "Evaluator",
    "FingerprintingLoader",
    "FullVideoRetrievalMetric",
    "Metric",
    "Number",
    "Outputs",
    "Predictor",
    "Results",
    "RetrievalMetric",
    "RetrievalOutputs",
    "RetrievalPredictor",
    "file_fingerprint",
    "read_results",
    "render_markdown",
    "render_table",
    "save_predictions",
    "write_results",
]
