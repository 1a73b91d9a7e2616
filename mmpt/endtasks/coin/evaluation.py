"""Step segmentation (COIN): a class for every second of a video, by a trained classifier or by the
words of steps.

Classes are 0 ("O", no step) and the steps from 1 on. Where several classes share the best score,
the first is predicted, as released, but a right one among k of them counts 1/k. So equal scores for
all classes reach chance.

Legend: W windows of a video, F seconds of a window, L seconds of a video, R seconds of all videos,
C classes, D hidden size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.coin.data import step_labels
from mmpt.errors import ConfigError, DataError
from mmpt.evaluators.base import (
    METRICS,
    PREDICTORS,
    WHOLE_VIDEO,
    Metric,
    Number,
    Outputs,
    Part,
    Predictor,
    Prepared,
)
from mmpt.evaluators.functional import shared_credit
from mmpt.evaluators.inference import config_spans, finite
from mmpt.inference.windows import embed_texts
from mmpt.losses.precision import wide
from mmpt.processors.tokenizer import load_tokenizer, special_tokens
from mmpt.processors.window_aligner import average_windows
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

TEXTS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class SegmentationOutputs(Outputs):
    """The class predicted for every second of every video, one video after the other."""

    predictions: np.ndarray  # int64 [R]
    targets: np.ndarray  # int64 [R]
    credits: np.ndarray  # float64 [R]: 1 where right, 1/k where right among k equal ones, else 0
    step_credits: np.ndarray  # float64 [R]: the same if class 0 cannot be chosen
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


class Scorer(NamedTuple):
    """A way to score the seconds of a video."""

    score_windows: Callable[[dict[str, torch.Tensor]], torch.Tensor]
    """Model inputs of one video -> scores [W, F, C], without class 0 if `background` is set."""
    background: float | None = None
    """Score of class 0 in every second; None where `score_windows` scores it."""


class SecondsPredictor(Predictor[SegmentationOutputs]):
    """Scores overlapping windows of whole videos and averages the scores of each second."""

    makes = SegmentationOutputs
    reads = WHOLE_VIDEO | {"video_targets": 1}
    counts = "videos segmented"

    @abstractmethod
    def scorer(self, model: Any) -> Scorer:
        """Returns how `model` scores windows."""

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the classes of every second of each video."""
        score_windows, background = self.scorer(model)
        for batch, inputs in batches:
            scores_WFC = wide(score_windows(inputs)).cpu().numpy()
            spans = config_spans(self.config, int(batch["video_len"][0]))
            scores_LC = average_windows(scores_WFC, spans)
            finite(torch.from_numpy(scores_LC), "seconds")
            if background is not None:
                scores_LC = np.pad(scores_LC, ((0, 0), (1, 0)), constant_values=background)
            targets_L = batch["video_targets"][0].numpy()
            yield {
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
        return SegmentationOutputs(**columns | {"num_classes": columns["num_classes"][0]})


@PREDICTORS.register
class COINPredictor(SecondsPredictor):
    """The classes that a trained classifier of seconds scores highest.

    The model returns `logits`, float [W, F, C]. Batches are of one video, as
    `COINActionSegmentationAligner` makes them.
    """

    needs: ClassVar[Mapping[str, str]] = {"logits": "MMFusionSeparateActionSegmentation"}

    def scorer(self, model: Any) -> Scorer:
        """Returns the model's own logits of all classes."""
        return Scorer(lambda inputs: self.run(model, inputs)["logits"])


@PREDICTORS.register
class COINZSPredictor(SecondsPredictor):
    """The step whose words are nearest to a second, if nearer than the words of any two steps are.

    That bound is the release's. It alone decides on "O", is the same for all seconds, and is so
    high with VideoCLIP's weights that users report every second as "O". Look at the share of
    predicted "O" next to the accuracy. The model is a two-tower model such as `MMFusionSeparate`.
    """

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if config.test_path is None:
            problem = f"`dataset.test_path` must be set for {type(self).__name__}, but is not."
            raise ConfigError("dataset", [problem])
        self.labels = step_labels(config.test_path)

    def scorer(self, model: Any) -> Scorer:
        """Returns the similarity to each step, and the bound as the score of class 0."""
        labels_CD = embed_labels(model, self.labels, self.config)
        bound = background_bound(labels_CD)
        what = "%d steps; a second must score more than %.4f to be one of them"
        logger.info(what, len(labels_CD), bound)
        return Scorer(lambda inputs: similarity(model, inputs, labels_CD), bound)


def embed_labels(model: Any, labels: list[str], config: DatasetConfig) -> torch.Tensor:
    """Returns the text vectors of the steps, float [C, D].

    Raises:
        CheckpointError: vectors that are not finite.
    """
    assert config.bert_name
    use_fast = config.use_fast is not False
    tokenizer = load_tokenizer(config.bert_name, use_fast)
    ids = tokenizer(labels, add_special_tokens=False)["input_ids"]
    special = special_tokens(config.bert_name, use_fast)
    labels_CD = embed_texts(model, ids, special, config.max_text_len, TEXTS_AT_ONCE)
    return finite(labels_CD, "step labels")


def background_bound(labels_CD: torch.Tensor) -> float:
    """Returns the largest dot product of two different rows; -inf if there is but one."""
    products_CC = labels_CD @ labels_CD.T
    return float(products_CC.fill_diagonal_(float("-inf")).max())


def similarity(
    model: Any, inputs: Mapping[str, torch.Tensor], labels_CD: torch.Tensor
) -> torch.Tensor:
    """Returns the dot products of every second of the windows of a video with every step, float [W,
    F, C].

    Args:
        model: with `forward_video` of `MMFusionSeparate`.
        inputs: caps and cmasks [1, W, 4], vfeats [1, W, F, 512], vmasks [1, W, F].
    """
    names = ("vfeats", "vmasks", "caps", "cmasks")
    states = model.forward_video(*(inputs[name][0] for name in names), output_hidden_states=True)
    return wide(states[:, 1:-1]) @ labels_CD.T


@METRICS.register
class COINActionSegmentationMetric(Metric[SegmentationOutputs]):
    """Share of seconds with the right class, with and without those that belong to no step, and the
    share of "O".
    """

    takes = SegmentationOutputs
    numbers = (
        Number("frame_acc", "step segmentation, frame accuracy, as published"),
        Number("step_frame_acc", "step segmentation, accuracy of seconds with a step, ours"),
        Number("step_choice_acc", "step segmentation, the same if background is no choice, ours"),
        Number("predicted_O", "step segmentation, seconds predicted as background"),
        Number("true_O", "step segmentation, seconds that are background"),
    )

    def compute(self, outputs: SegmentationOutputs) -> dict[str, float]:
        """Returns frame_acc, step_frame_acc, step_choice_acc, predicted_O and true_O, fractions.

        frame_acc counts the background as a class like any other, so that predicting nothing but
        background reaches true_O. step_frame_acc leaves background seconds out. step_choice_acc
        does so too and compares steps only, which tells what a model knows whose every second is
        predicted as background.

        Raises:
            DataError: no second has a step.
        """
        with_step_R = outputs.targets != 0
        if not with_step_R.any():
            raise DataError(
                f"None of the {len(with_step_R)} test seconds has a step, so annotations and "
                "features do not belong together; check `dataset.test_path` and "
                "`dataset.vfeat_dir`."
            )
        return {
            "frame_acc": float(outputs.credits.mean()),
            "step_frame_acc": float(outputs.credits[with_step_R].mean()),
            "step_choice_acc": float(outputs.step_credits[with_step_R].mean()),
            "predicted_O": float((outputs.predictions == 0).mean()),
            "true_O": float(1 - with_step_R.mean()),
        }

    def chance(self, outputs: SegmentationOutputs) -> dict[str, float]:
        """Returns what a class drawn at random for every second reaches."""
        chance = 1 / outputs.num_classes
        return {
            "frame_acc": chance,
            "step_frame_acc": chance,
            "step_choice_acc": 1 / (outputs.num_classes - 1),
            "predicted_O": chance,
            "true_O": float((outputs.targets == 0).mean()),
        }

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the line of the release, and the share of predicted "O"."""
        return (
            f"frame accuracy: {result['frame_acc']:.4f} (predicted as O: "
            f"{result['predicted_O']:.4f}, truly O: {result['true_O']:.4f})"
        )
