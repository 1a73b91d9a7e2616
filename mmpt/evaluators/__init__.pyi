from .base import (
    CLIPS,
    METRICS,
    PREDICTORS,
    WHOLE_VIDEO,
    Metric,
    MetricValue,
    Outputs,
    Predictor,
    Results,
)
from .card_results import card_results
from .evaluator import (
    Evaluator,
    FingerprintingLoader,
    check_results,
    read_results,
    save_predictions,
    write_results,
)
from .metrics import (
    FullVideoBGRetrievalMetric,
    FullVideoRetrievalMetric,
    RetrievalMetric,
)
from .predictors import (
    BGRetrievalOutputs,
    BGRetrievalPredictor,
    ClipId,
    RetrievalOutputs,
    RetrievalPredictor,
)
from .table import render_markdown, render_table

__all__ = [
    "CLIPS",
    "METRICS",
    "PREDICTORS",
    "WHOLE_VIDEO",
    "BGRetrievalOutputs",
    "BGRetrievalPredictor",
    "ClipId",
    "Evaluator",
    "FingerprintingLoader",
    "FullVideoBGRetrievalMetric",
    "FullVideoRetrievalMetric",
    "Metric",
    "MetricValue",
    "Outputs",
    "Predictor",
    "Results",
    "RetrievalMetric",
    "RetrievalOutputs",
    "RetrievalPredictor",
    "card_results",
    "check_results",
    "read_results",
    "render_markdown",
    "render_table",
    "save_predictions",
    "write_results",
]
