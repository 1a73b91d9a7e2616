"""Step segmentation (COIN): a class for every second of a video, by a trained classifier or by the words of steps.

Classes are 0 ("O", no step) and the steps from 1 on. Where several classes share the best score, the first is
predicted, as released, but a right one among k of them counts 1/k; so equal scores for all reach chance.

Legend: W windows of a video, F seconds of a window, L seconds of a video, R seconds of all videos, C classes, D hidden
size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.coin.data import step_labels
from mmpt.errors import ConfigError, DataError
from mmpt.evaluators.base import (
    METRICS,
    PREDICTORS,
    BatchLoader,
    Metric,
    Number,
    Outputs,
    Predictor,
)
from mmpt.evaluators.functional import shared_credit
from mmpt.evaluators.inference import check_finite, check_not_empty, evaluating, model_inputs
from mmpt.evaluators.seconds import config_spans, need_entries, need_logits
from mmpt.inference.windows import embed_texts
from mmpt.losses.precision import wide
from mmpt.processors.tokenizer import load_tokenizer, special_tokens
from mmpt.processors.window_aligner import average_windows
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

TEXTS_AT_ONCE = 256
ENTRIES = ("video_len", "video_targets", "video_id")


@dataclass(frozen=True, kw_only=True)
class SegmentationOutputs(Outputs):
    """What is predicted for every second of every video, one video after the other."""

    predictions: np.ndarray  # int64 [R]
    targets: np.ndarray  # int64 [R]
    credits: np.ndarray  # float64 [R]: 1 where right, 1/k where right among k equal classes, else 0
    step_credits: (
        np.ndarray
    )  # float64 [R]: the same if class 0 is not to be chosen; of seconds with a step
    num_classes: int
    video_ids: list[str]
    video_lengths: list[int]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return Y_pred and Y_true (named as in the release), video_id and video_len."""
        return {
            "Y_pred": self.predictions,
            "Y_true": self.targets,
            "video_id": np.array(self.video_ids),
            "video_len": np.array(self.video_lengths),
        }


ScoreWindows = Callable[[dict[str, torch.Tensor]], torch.Tensor]
"""Model inputs of one video to float scores [W, F, C]."""
ScoreClasses = Callable[[np.ndarray], np.ndarray]
"""Scores [L, C] that are averaged over windows to those of all classes."""


class SecondsPredictor(Predictor[SegmentationOutputs]):
    """Scores overlapping windows of whole videos and averages what they say of a second."""

    makes = SegmentationOutputs
    reads: ClassVar[Mapping[str, int]] = {
        "caps": 2,
        "cmasks": 2,
        "vfeats": 3,
        "vmasks": 2,
        "video_targets": 1,
    }

    def segment(
        self,
        model: nn.Module,
        loader: BatchLoader,
        device: torch.device,
        score_windows: ScoreWindows,
        score_classes: ScoreClasses = lambda scores_LC: scores_LC,
    ) -> SegmentationOutputs:
        """Predict the class of every second; each window is scored once.

        Raises:
            ConfigError: another aligner's batches.
            DataError: the test set is empty.
            CheckpointError: scores that are not finite.
        """
        parts: list[tuple[np.ndarray, ...]] = []
        video_ids: list[str] = []
        for batch in progress(loader, len(loader), "videos segmented", logger):
            video = need_entries(batch, ENTRIES, self, "COINActionSegmentationAligner")
            scores_WFC = wide(score_windows(model_inputs(batch, model, device)))
            spans = config_spans(self.config, int(video["video_len"]))
            scores_LC = score_classes(average_windows(scores_WFC.cpu().numpy(), spans))
            check_finite("seconds", torch.from_numpy(scores_LC))
            targets_L = video["video_targets"].numpy()
            credits = (
                shared_credit(scores_LC, targets_L),
                shared_credit(scores_LC[:, 1:], targets_L - 1),
            )
            parts.append((scores_LC.argmax(axis=1), targets_L, *credits))
            num_classes = scores_LC.shape[1]
            video_ids.append(video["video_id"])
        check_not_empty(video_ids)
        predictions, targets, all_credits, step_credits = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        return SegmentationOutputs(
            predictions=predictions,
            targets=targets,
            credits=all_credits,
            step_credits=step_credits,
            num_classes=num_classes,
            video_ids=video_ids,
            video_lengths=[len(part[0]) for part in parts],
        )


@PREDICTORS.register
class COINPredictor(SecondsPredictor):
    """The classes that a trained classifier of seconds scores highest."""

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> SegmentationOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: returns `logits`, float [W, F, C].
            loader: batches of one video, as `COINActionSegmentationAligner` makes them.
        Raises:
            ConfigError: a model without such logits.
            DataError: the test set is empty.
            CheckpointError: the model gives logits that are not finite.
        """

        def score_windows(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return need_logits(model(**inputs), self, "MMFusionSeparateActionSegmentation")

        with evaluating(model.to(device)):
            return self.segment(model, loader, device, score_windows)


@PREDICTORS.register
class COINZSPredictor(SecondsPredictor):
    """The step whose words are most similar to a second, if they are more so than the words of any two steps are.

    That bound is the release's. It decides on "O" alone, is the same for all seconds, and is so high with VideoCLIP's
    weights that users report every second as "O"; so look at the share of predicted "O" beside the accuracy.
    """

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if config.test_path is None:
            raise ConfigError(
                "dataset",
                [f"`dataset.test_path` must be set for {type(self).__name__}, but is not."],
            )
        self.labels = step_labels(config.test_path)

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> SegmentationOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: a two-tower model such as `MMFusionSeparate`.
            loader: batches of one video, as `COINActionSegmentationAligner` makes them.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        with evaluating(model.to(device)):
            labels_CD = embed_labels(model, self.labels, self.config)
            bound = background_bound(labels_CD)
            logger.info(
                "%d steps; a second must score more than %.4f to be one of them",
                len(labels_CD),
                bound,
            )

            def score_windows(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
                return similarity(model, inputs, labels_CD)

            def score_classes(scores_LC: np.ndarray) -> np.ndarray:
                return np.pad(
                    scores_LC, ((0, 0), (1, 0)), constant_values=bound
                )  # as a score of class 0

            return self.segment(model, loader, device, score_windows, score_classes)


def embed_labels(model: Any, labels: list[str], config: DatasetConfig) -> torch.Tensor:
    """Return the text vectors of the steps, float [C, D].

    Raises:
        CheckpointError: vectors that are not finite.
    """
    assert config.bert_name
    use_fast = config.use_fast is not False
    tokenizer = load_tokenizer(config.bert_name, use_fast)
    ids = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
    special = special_tokens(config.bert_name, use_fast)
    labels_CD = embed_texts(model, ids, special, config.max_text_len, TEXTS_AT_ONCE)
    check_finite("step labels", labels_CD)
    return labels_CD


def background_bound(labels_CD: torch.Tensor) -> float:
    """Return the largest dot product of two different rows; -inf if there is but one."""
    products_CC = labels_CD @ labels_CD.T
    return float(products_CC.fill_diagonal_(float("-inf")).max())


def similarity(
    model: Any, inputs: Mapping[str, torch.Tensor], labels_CD: torch.Tensor
) -> torch.Tensor:
    """Return the dot products of every second of the windows of a video with every step, float [W, F, C].

    Args:
        model: with `forward_video` of `MMFusionSeparate`.
        inputs: caps and cmasks [1, W, 4], vfeats [1, W, F, 512], vmasks [1, W, F].
    """
    names = ("vfeats", "vmasks", "caps", "cmasks")
    states = model.forward_video(*(inputs[name][0] for name in names), output_hidden_states=True)
    return wide(states[:, 1:-1]) @ labels_CD.T


@METRICS.register
class COINActionSegmentationMetric(Metric[SegmentationOutputs]):
    """Share of seconds with the right class, with and without those that belong to no step, and the share of "O"."""

    takes = SegmentationOutputs
    numbers = (
        Number("frame_acc", "step segmentation, frame accuracy, as published"),
        Number("step_frame_acc", "step segmentation, accuracy of seconds with a step, ours"),
        Number("step_choice_acc", "step segmentation, the same if background is no choice, ours"),
        Number("predicted_O", "step segmentation, seconds predicted as background"),
        Number("true_O", "step segmentation, seconds that are background"),
    )

    def compute(self, outputs: SegmentationOutputs) -> dict[str, float]:
        """Return frame_acc, step_frame_acc, step_choice_acc, predicted_O and true_O, fractions.

        frame_acc counts the background as a class like any other, so that predicting nothing but background reaches
        true_O. step_frame_acc leaves background seconds out. step_choice_acc does so too and compares steps only, which
        tells what a model knows whose every second is predicted as background.

        Raises:
            DataError: no second has a step.
        """
        with_step_R = outputs.targets != 0
        if not with_step_R.any():
            raise DataError(
                f"None of the {len(with_step_R)} test seconds has a step, so annotations and features do not belong "
                "together; check `dataset.test_path` and `dataset.vfeat_dir`."
            )
        return {
            "frame_acc": float(outputs.credits.mean()),
            "step_frame_acc": float(outputs.credits[with_step_R].mean()),
            "step_choice_acc": float(outputs.step_credits[with_step_R].mean()),
            "predicted_O": float((outputs.predictions == 0).mean()),
            "true_O": float(1 - with_step_R.mean()),
        }

    def chance(self, outputs: SegmentationOutputs) -> dict[str, float]:
        """Return what a class drawn at random for every second reaches."""
        chance = 1 / outputs.num_classes
        return {
            "frame_acc": chance,
            "step_frame_acc": chance,
            "step_choice_acc": 1 / (outputs.num_classes - 1),
            "predicted_O": chance,
            "true_O": float((outputs.targets == 0).mean()),
        }

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the line of the release, and the share of predicted "O"."""
        return (
            f"frame accuracy: {result['frame_acc']:.4f} (predicted as O: {result['predicted_O']:.4f}, "
            f"truly O: {result['true_O']:.4f})"
        )
