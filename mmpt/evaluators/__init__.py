"""Evaluation: pure metrics, the predictors that feed them, and the rows and tables that report them."""

from mmpt.evaluators.base import METRICS, PREDICTORS, BatchLoader, Metric, Number, Outputs, Predictor, Results
from mmpt.evaluators.bg_retrieval import BGRetrievalOutputs, BGRetrievalPredictor
from mmpt.evaluators.didemo import DiDeMoMetric, DiDeMoPredictor, MomentOutputs
from mmpt.evaluators.evaluator import (
    Evaluator,
    FingerprintingLoader,
    check_results,
    file_fingerprint,
    read_results,
    save_predictions,
    write_results,
)
from mmpt.evaluators.how2align import How2AlignMetric, How2AlignOutputs, How2AlignPredictor
from mmpt.evaluators.metrics import FullVideoBGRetrievalMetric, FullVideoRetrievalMetric, RetrievalMetric
from mmpt.evaluators.outputs import ClipId, RetrievalOutputs
from mmpt.evaluators.predictors import RetrievalPredictor
from mmpt.evaluators.qa import QAMetric, QAOutputs, QAPredictor
from mmpt.evaluators.segmentation import (
    COINActionSegmentationMetric,
    COINPredictor,
    COINZSPredictor,
    SegmentationOutputs,
)
from mmpt.evaluators.step_localization import CrossTaskMetric, CrossTaskPredictor, LocalisationOutputs
from mmpt.evaluators.table import render_markdown, render_table

__all__ = [
    "METRICS",
    "PREDICTORS",
    "BGRetrievalOutputs",
    "BGRetrievalPredictor",
    "BatchLoader",
    "COINActionSegmentationMetric",
    "COINPredictor",
    "COINZSPredictor",
    "ClipId",
    "CrossTaskMetric",
    "CrossTaskPredictor",
    "DiDeMoMetric",
    "DiDeMoPredictor",
    "Evaluator",
    "FingerprintingLoader",
    "FullVideoBGRetrievalMetric",
    "FullVideoRetrievalMetric",
    "How2AlignMetric",
    "How2AlignOutputs",
    "How2AlignPredictor",
    "LocalisationOutputs",
    "Metric",
    "MomentOutputs",
    "Number",
    "Outputs",
    "Predictor",
    "QAMetric",
    "QAOutputs",
    "QAPredictor",
    "Results",
    "RetrievalMetric",
    "RetrievalOutputs",
    "RetrievalPredictor",
    "SegmentationOutputs",
    "check_results",
    "file_fingerprint",
    "read_results",
    "render_markdown",
    "render_table",
    "save_predictions",
    "write_results",
]
