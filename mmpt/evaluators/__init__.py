"""Evaluation: pure metrics, the predictors that feed them, and the rows and tables that report them."""

from mmpt.evaluators.evaluator import (
    Evaluator,
    Results,
    file_fingerprint,
    read_results,
    save_predictions,
    write_results,
)
from mmpt.evaluators.metrics import (
    METRICS,
    ClipId,
    FullVideoRetrievalMetric,
    Metric,
    RetrievalMetric,
    RetrievalOutputs,
)
from mmpt.evaluators.predictors import PREDICTORS, Predictor, RetrievalPredictor, score_pairs
from mmpt.evaluators.table import render_markdown, render_table

__all__ = [
    "METRICS",
    "PREDICTORS",
    "ClipId",
    "Evaluator",
    "FullVideoRetrievalMetric",
    "Metric",
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
    "score_pairs",
    "write_results",
]
