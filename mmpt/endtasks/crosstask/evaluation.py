"""Step localisation (CrossTask): every step of a task is placed at one second, in order, where it scores highest.

Where several placements cost the same, the rule of `place_steps` decides, as in the release; so a model that scores
all seconds alike puts the last step at the video's end and the others side by side at its beginning. A video with fewer
seconds than steps has no placement: all its steps count as missed.

Legend: R real seconds of all windows of a video, L its seconds, K steps of its task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import nn

from mmpt.errors import DataError
from mmpt.evaluators.base import (
    METRICS,
    PREDICTORS,
    BatchLoader,
    Metric,
    Number,
    Outputs,
    Predictor,
)
from mmpt.evaluators.inference import check_finite, check_not_empty, evaluating, model_inputs
from mmpt.evaluators.seconds import config_spans, need_entries, need_logits
from mmpt.losses.precision import wide
from mmpt.processors.window_aligner import Span, average_windows
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

ENTRIES = ("targets", "task", "video_len", "video_id")


class PlacedVideo(NamedTuple):
    """Where the steps of a video are, and where they were placed."""

    task: str
    video_id: str
    done: np.ndarray  # uint8 [L, K]: 1 where a step is done
    placed: np.ndarray  # uint8 [L, K]: 1 at the second of each step


@dataclass(frozen=True, kw_only=True)
class LocalisationOutputs(Outputs):
    """The videos of a test set."""

    videos: list[PlacedVideo]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return Y_true/<task>/<video> and Y_pred/<task>/<video>, uint8 [L, K] each."""
        arrays: dict[str, np.ndarray] = {}
        for video in self.videos:
            arrays[f"Y_true/{video.task}/{video.video_id}"] = video.done
            arrays[f"Y_pred/{video.task}/{video.video_id}"] = video.placed
        return arrays


@PREDICTORS.register
class CrossTaskPredictor(Predictor[LocalisationOutputs]):
    """Averages the logits of overlapping windows and places the steps by their log-probabilities over steps."""

    makes = LocalisationOutputs
    reads: ClassVar[Mapping[str, int]] = {
        "caps": 2,
        "cmasks": 2,
        "vfeats": 3,
        "vmasks": 2,
        "targets": 2,
    }

    def __call__(
        self, model: nn.Module, loader: BatchLoader, device: torch.device
    ) -> LocalisationOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: returns `logits`, float [R, K].
            loader: batches of one video, as `CrossTaskAligner` makes them.
        Raises:
            ConfigError: a model without such logits, or another aligner's batches.
            DataError: the test set is empty.
            CheckpointError: the model gives logits that are not finite.
        """
        videos: list[PlacedVideo] = []
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "videos localised", logger):
                video = need_entries(batch, ENTRIES, self, "CrossTaskAligner")
                output = model(**model_inputs(batch, model, device))
                logits_RK = wide(
                    need_logits(output, self, "MMFusionSeparateActionLocalization")
                ).cpu()
                check_finite("seconds", logits_RK)
                spans = config_spans(self.config, int(video["video_len"]))
                done_LK = average_rows(video["targets"].numpy(), spans) > 0.5
                placed_LK = place_steps(-_log_softmax(average_rows(logits_RK.numpy(), spans)))
                videos.append(
                    PlacedVideo(
                        video["task"], video["video_id"], done_LK.astype(np.uint8), placed_LK
                    )
                )
        check_not_empty(videos, "dataset.train_csv_path")
        if short := [
            video.video_id for video in videos if video.done.shape[0] < video.done.shape[1]
        ]:
            logger.warning(
                "%d videos have fewer seconds than steps, all missed (first: %s)",
                len(short),
                short[0],
            )
        return LocalisationOutputs(videos=videos)


def average_rows(rows_RK: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Return float32 [L, K], the mean over windows of each second, of rows that go through the windows in turn."""
    ends = np.cumsum([end - start for start, end in spans])
    return average_windows(np.split(rows_RK, ends[:-1]), spans)


def _log_softmax(scores_LK: np.ndarray) -> np.ndarray:
    shifted_LK = scores_LK.astype(np.float64) - scores_LK.max(axis=1, keepdims=True)
    return shifted_LK - np.log(np.exp(shifted_LK).sum(axis=1, keepdims=True))


def place_steps(cost_LK: np.ndarray) -> np.ndarray:
    """Return uint8 [L, K] with one 1 per step, at increasing seconds of least total cost; all 0 if L < K.

    Viterbi's algorithm over 2K + 1 states (background, step 1, background, ..., step K, background), O(L K). Background
    costs nothing and lasts any time, a step one second. Of predecessors with equal cost a state takes the first of:
    itself (background only), the one before, the one before that (steps only). A video ends in the last step rather
    than in background if these cost the same.

    Args:
        cost_LK: float, of step k at second l; finite.
    """
    num_seconds, num_steps = cost_LK.shape
    placed_LK = np.zeros((num_seconds, num_steps), dtype=np.uint8)
    if num_seconds < num_steps:
        return placed_LK
    num_states = 2 * num_steps + 1
    total = np.full(num_states, np.inf)
    total[0] = 0
    back_by_S = np.empty((num_seconds, num_states), dtype=np.int8)
    for second in range(num_seconds):
        steps, background = total[1::2], total[0::2]
        from_step = np.concatenate(
            ([np.inf], steps)
        )  # to the background behind it, and to the step after it
        back_by_S[second, 0::2] = from_step < background
        back_by_S[second, 1::2] = np.where(from_step[:-1] < background[:-1], 2, 1)
        new_background = np.minimum(background, from_step)
        new_steps = np.minimum(background[:-1], from_step[:-1]) + cost_LK[second]
        total = np.empty(num_states)
        total[0::2], total[1::2] = new_background, new_steps
    state = num_states - 2 if total[-2] <= total[-1] else num_states - 1
    for second in reversed(range(num_seconds)):
        if state % 2:
            placed_LK[second, state // 2] = 1
        state -= back_by_S[second, state]
    assert state == 0, state
    return placed_LK


@METRICS.register
class CrossTaskMetric(Metric[LocalisationOutputs]):
    """Share of a task's steps that are placed in a second where they are done, mean over tasks."""

    takes = LocalisationOutputs
    numbers = (Number("recall", "step localisation, recall, mean over tasks"),)

    def compute(self, outputs: LocalisationOutputs) -> dict[str, float]:
        """Return recall, and the recall of every task under its id; fractions.

        Raises:
            DataError: no video has a step.
        """
        return recall_by_task(
            outputs.videos, [float((v.done * v.placed).sum()) for v in outputs.videos]
        )

    def chance(self, outputs: LocalisationOutputs) -> dict[str, float]:
        """Return what steps reach that are placed in order at seconds drawn uniformly."""
        return recall_by_task(
            outputs.videos, [expected_hits(video.done) for video in outputs.videos]
        )

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the mean over tasks."""
        return f"recall: {result['recall']:.4f}"


def recall_by_task(videos: Sequence[PlacedVideo], hits: Sequence[float]) -> dict[str, float]:
    """Return hits over steps for every task that has steps in its videos, and `recall`, their mean.

    Args:
        hits: of every video, how many of its steps are placed where they are done.
    Raises:
        DataError: no video has a step.
    """
    num_hits: dict[str, float] = {}
    num_steps: dict[str, int] = {}
    for video, hit in zip(videos, hits, strict=True):
        num_hits[video.task] = num_hits.get(video.task, 0.0) + hit
        num_steps[video.task] = num_steps.get(video.task, 0) + int(video.done.any(axis=0).sum())
    recalls = {task: num_hits[task] / steps for task, steps in num_steps.items() if steps}
    if not recalls:
        raise DataError(
            f"None of the {len(videos)} test videos has a step within its seconds, so annotations and features do not "
            "belong together; check `dataset.annotation_path` and `dataset.vfeat_dir`."
        )
    return recalls | {"recall": sum(recalls.values()) / len(recalls)}


def expected_hits(done_LK: np.ndarray) -> float:
    """Return how many steps are hit on average if K of the L seconds are drawn uniformly and taken in order.

    Step k (from 0) is at second l with probability C(l, k) C(L-1-l, K-1-k) / C(L, K).

    Args:
        done_LK: 0 or 1.
    """
    num_seconds, num_steps = done_LK.shape
    if num_seconds < num_steps:
        return 0.0
    log_factorial = np.cumsum(np.log(np.maximum(np.arange(num_seconds + 1), 1)))

    def log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        possible = n >= k
        rest = np.where(possible, n - k, 0)
        return np.where(
            possible, log_factorial[n] - log_factorial[k] - log_factorial[rest], -np.inf
        )

    second_L1, step_K = np.arange(num_seconds)[:, None], np.arange(num_steps)
    before, behind = (
        log_choose(second_L1, step_K),
        log_choose(num_seconds - 1 - second_L1, num_steps - 1 - step_K),
    )
    whole = log_choose(np.array(num_seconds), np.array(num_steps))
    return float((done_LK * np.exp(before + behind - whole)).sum())
