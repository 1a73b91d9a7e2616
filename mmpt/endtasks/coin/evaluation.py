"""Step segmentation (COIN): predicts a class for every second of a video.

The scores come from a trained classifier, or from the words of the steps. Classes are 0 ("O", no
step) and the steps from 1 on. If several classes share the best score, the first is predicted, as
in the release. If the right class is one of k such classes, the second counts 1/k, so a model that
scores all classes alike reaches chance.

Legend: W windows of a video, F seconds of a window, L seconds of a video, R seconds of all videos,
C classes, D hidden size.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from mmpt.endtasks.coin.data import step_labels
from mmpt.evaluators import (
    METRICS,
    PREDICTORS,
    WHOLE_VIDEO,
    Metric,
    MetricValue,
    Outputs,
    Predictor,
)
from mmpt.evaluators.base import MetricValues, Part, Prepared, require_finite
from mmpt.evaluators.functional import shared_credit
from mmpt.inference.embedding import embed_texts
from mmpt.losses.base import upcast
from mmpt.processors.tokenizer import load_tokenizer, special_tokens
from mmpt.processors.window_aligner import (
    WindowAligner,
    average_seconds,
    average_windows,
)
from mmpt.reporting import EvaluationRun, Section, prediction_sections
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class SegmentationOutputs(Outputs):
    """The predicted class of every second. The seconds of all videos are concatenated."""

    predictions: np.ndarray  # int64 [R]
    targets: np.ndarray  # int64 [R]
    # float64 [R]: 1 if right, 1/k if right but one of k classes with the best score, else 0
    credits: np.ndarray
    step_credits: np.ndarray  # float64 [R]: the same, without class 0 as a choice
    num_classes: int
    video_ids: list[str]
    video_lengths: list[int]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns Y_pred and Y_true (named as in the release), video_id and video_len."""
        return {
            "Y_pred": self.predictions,
            "Y_true": self.targets,
            "video_id": np.array(self.video_ids),
            "video_len": np.array(self.video_lengths),
        }


@PREDICTORS.register
class COINPredictor(Predictor[SegmentationOutputs]):
    """A predictor of the classes that a trained classifier scores highest.

    It scores overlapping windows of a whole video, and averages the scores of each second. The
    model returns `logits`, float [W, F, C]. Batches hold one video each, as
    `COINActionSegmentationAligner` makes them.
    """

    Config = WindowAligner.Config
    config: WindowAligner.Config
    output_type = SegmentationOutputs
    reads = WHOLE_VIDEO | {"video_targets": 1}
    model_outputs: ClassVar[Mapping[str, str]] = {
        "logits": "MMFusionSeparateActionSegmentation"
    }

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the classes of the seconds of each video."""
        for batch, inputs in batches:
            output = self.run(model, inputs)
            yield self.classify(batch, output["logits"])

    def classify(
        self,
        batch: Mapping[str, Any],
        scores_WFC: torch.Tensor,
        background: float | None = None,
    ) -> dict[str, Any]:
        """Returns the classes of the seconds of a video, and how many of them are right.

        Args:
            scores_WFC: scores of the windows. Where windows overlap, their scores are averaged.
            background: score of class 0 in every second, if `scores_WFC` do not have that class.
        """
        spans = self.config.spans(int(batch["video_len"][0]))
        scores_RC = average_windows(upcast(scores_WFC).cpu().numpy(), spans)
        scores_LC = average_seconds(scores_RC, self.config.feature_fps)
        require_finite(torch.from_numpy(scores_LC), "seconds")
        if background is not None:
            scores_LC = np.pad(scores_LC, ((0, 0), (1, 0)), constant_values=background)
        targets_L = batch["video_targets"][0].numpy()
        return {
            "predictions": scores_LC.argmax(axis=1),
            "targets": targets_L,
            "credits": shared_credit(scores_LC, targets_L),
            "step_credits": shared_credit(scores_LC[:, 1:], targets_L - 1),
            "num_classes": [scores_LC.shape[1]],
            "video_ids": batch["video_id"],
            "video_lengths": [len(scores_LC)],
        }

    def collect(self, columns: dict[str, Any]) -> SegmentationOutputs:
        """Returns the outputs."""
        num_classes, *_ = columns.pop("num_classes")
        return SegmentationOutputs(**columns, num_classes=num_classes)


@PREDICTORS.register
class COINZSPredictor(COINPredictor):
    """A predictor that chooses the step whose words score highest with a second.

    A second is "O" if that score is not above a bound. As in the release, the bound is the largest
    score between the words of two different steps. It is so high with VideoCLIP's weights that
    users report every second as "O": look at the share of predicted "O" next to the accuracy. The
    model is a two-tower model such as `MMFusionSeparate`.
    """

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the classes of every second of each video."""
        labels_CD = self.embed_labels(model)
        bound = background_bound(labels_CD)
        what = "%d steps; a second must score more than %.4f to be one of them"
        logger.info(what, len(labels_CD), bound)
        for batch, inputs in batches:
            windows = {name: value[0] for name, value in inputs.items()}
            states = model.forward_video(**windows, output_hidden_states=True)
            states_WFD = upcast(states[:, 1:-1])  # [CLS] is first, [SEP] is last
            yield self.classify(batch, states_WFD @ labels_CD.T, bound)

    def embed_labels(self, model: Any) -> torch.Tensor:
        """Returns the vectors of the words of steps 1, 2, ..., float32 [C - 1, D]."""
        bert_name = self.config.bert_name or ""
        tokenizer = load_tokenizer(bert_name, self.config.use_fast)
        labels = step_labels(self.config.test_path or "")
        ids = tokenizer(labels, add_special_tokens=False)["input_ids"]
        special = special_tokens(bert_name, self.config.use_fast)
        labels_CD = embed_texts(model, ids, special, self.config.max_text_len)
        return require_finite(labels_CD, "step labels")


def background_bound(labels_CD: torch.Tensor) -> float:
    """Returns the largest dot product of two different rows; -inf if there is only one row."""
    products_CC = labels_CD @ labels_CD.T
    products_CC.fill_diagonal_(float("-inf"))
    return float(products_CC.max())


@METRICS.register
class COINActionSegmentationMetric(Metric[SegmentationOutputs]):
    """The shares of seconds with the right class, with and without background, and of "O"."""

    input_type = SegmentationOutputs
    numbers = (
        MetricValue("frame_acc", "step segmentation, frame accuracy, as published"),
        MetricValue(
            "step_frame_acc", "step segmentation, accuracy of seconds with a step, ours"
        ),
        MetricValue(
            "step_choice_acc",
            "step segmentation, accuracy among steps (no background class), ours",
        ),
        MetricValue(
            "predicted_O", "step segmentation, seconds predicted as background"
        ),
        MetricValue("true_O", "step segmentation, seconds that are background"),
    )

    def compute(self, outputs: SegmentationOutputs) -> MetricValues:
        """Returns frame_acc, step_frame_acc, step_choice_acc, predicted_O and true_O, fractions.

        frame_acc counts background as a class like any other, so a model that predicts only
        background reaches true_O. step_frame_acc leaves out the seconds of the background.
        step_choice_acc also leaves out background as a choice. It shows what a model knows about
        steps even if it predicts background everywhere.
        """
        with_step_R = outputs.targets != 0
        predicted_O_R = outputs.predictions == 0
        return {
            "frame_acc": float(outputs.credits.mean()),
            "step_frame_acc": float(outputs.credits[with_step_R].mean()),
            "step_choice_acc": float(outputs.step_credits[with_step_R].mean()),
            "predicted_O": float(predicted_O_R.mean()),
            "true_O": float(1 - with_step_R.mean()),
        }

    def chance(self, outputs: SegmentationOutputs) -> MetricValues:
        """Returns the expected numbers if the class of every second is drawn at random."""
        chance = 1 / outputs.num_classes
        true_O_R = outputs.targets == 0
        return {
            "frame_acc": chance,
            "step_frame_acc": chance,
            "step_choice_acc": 1 / (outputs.num_classes - 1),
            "predicted_O": chance,
            "true_O": float(true_O_R.mean()),
        }


@prediction_sections.register
def _prediction_sections(
    outputs: SegmentationOutputs, run: EvaluationRun
) -> list[Section]:
    from mmpt.endtasks.coin.report import segmentation_sections  # deferred: matplotlib

    return segmentation_sections(outputs, run)
