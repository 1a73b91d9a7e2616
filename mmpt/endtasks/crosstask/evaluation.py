"""Step localisation (CrossTask): places every step of a task at one second of a video.

The steps are placed in order, so that their scores are as high as possible. If several placements
have the same score, the rule of `place_steps` decides, as in the release. A model that scores all
seconds alike therefore places the last step at the end of the video, and the others at consecutive
seconds at its beginning. A video with fewer seconds than steps has no placement, and all its steps
count as missed.

Legend: R real feature rows of all windows of a video, N its rows, L its seconds, K steps of its
task.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

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
from mmpt.losses.base import upcast
from mmpt.processors.sampling import Span
from mmpt.processors.window_aligner import (
    WindowAligner,
    average_seconds,
    average_windows,
)
from mmpt.reporting import EvaluationRun, Section, prediction_sections


class PlacedVideo(NamedTuple):
    """A video with the true and the predicted places of its steps."""

    task: str
    video_id: str
    done: np.ndarray  # uint8 [L, K]: 1 where a step is done
    placed: np.ndarray  # uint8 [L, K]: 1 at the second of each step


@dataclass(frozen=True, kw_only=True)
class LocalisationOutputs(Outputs):
    """The videos of a test set."""

    videos: list[PlacedVideo]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns Y_true/<task>/<video> and Y_pred/<task>/<video>, uint8 [L, K] each."""
        arrays: dict[str, np.ndarray] = {}
        for video in self.videos:
            arrays[f"Y_true/{video.task}/{video.video_id}"] = video.done
            arrays[f"Y_pred/{video.task}/{video.video_id}"] = video.placed
        return arrays


@PREDICTORS.register
class CrossTaskPredictor(Predictor[LocalisationOutputs]):
    """A predictor that places steps by their log-probabilities.

    The logits of overlapping windows are averaged. The model returns `logits`, float [R, K].
    Batches hold one video each, as `CrossTaskAligner` makes them.
    """

    Config = WindowAligner.Config
    config: WindowAligner.Config
    output_type = LocalisationOutputs
    reads = WHOLE_VIDEO | {"targets": 2, "task": 0}
    model_outputs: ClassVar[Mapping[str, str]] = {
        "logits": "MMFusionSeparateActionLocalization"
    }

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the placement of the steps of each video."""
        for batch, inputs in batches:
            logits_RK = upcast(self.run(model, inputs)["logits"])
            logits_RK = require_finite(logits_RK.cpu(), "seconds")
            spans = self.config.spans(int(batch["video_len"][0]))
            fps = self.config.feature_fps
            logits_NK = average_rows(logits_RK.numpy(), spans)
            logits_LK = average_seconds(logits_NK, fps)
            log_shares_LK = torch.from_numpy(logits_LK).double().log_softmax(dim=1)
            done_NK = average_rows(batch["targets"][0].numpy(), spans)
            done_LK = average_seconds(done_NK, fps) > 0
            video = PlacedVideo(
                task=batch["task"][0],
                video_id=batch["video_id"][0],
                done=done_LK.astype(np.uint8),
                placed=place_steps(-log_shares_LK.numpy()),
            )
            yield {"videos": [video]}


def average_rows(rows_RK: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Returns the mean of each row over the windows that cover it, float32 [N, K].

    Args:
        rows_RK: the rows of the first window, then of the second, and so on.
        spans: rows of the windows.
    """
    lengths = [end - start for start, end in spans]
    ends = np.cumsum(lengths)
    windows = np.split(rows_RK, ends[:-1])
    return average_windows(windows, spans)


def place_steps(cost_LK: np.ndarray) -> np.ndarray:
    """Returns uint8 [L, K] with one 1 per step, at increasing seconds of least total cost.

    All entries are 0 if L < K. Background costs nothing and lasts any time, a step lasts one
    second. If predecessors have equal cost, a state takes the first of: itself (background only),
    the one before, the one two before (steps only). A video ends in the last step rather than in
    background if these cost the same.

    Args:
        cost_LK: float, of step k at second l; finite.
    """
    num_seconds, num_steps = cost_LK.shape
    placed_LK = np.zeros((num_seconds, num_steps), dtype=np.uint8)
    if num_seconds < num_steps:
        return placed_LK
    # Viterbi's algorithm over the states background, step 1, background, ..., step K, background:
    # even states are background, odd ones are steps. `background` and `steps` are the least costs
    # of being in each state after the seconds so far:
    #   background[k] = min(background[k], steps[k-1])
    #   steps[k] = cost[k] + min(background[k], steps[k-1])
    # where steps[-1] is infinite. So background[k] and steps[k] have the same two predecessors.
    background = np.full(num_steps + 1, np.inf)
    background[0] = 0
    steps = np.full(num_steps, np.inf)
    # How many states to go back to the predecessor, from every state in every second.
    num_states = 2 * num_steps + 1
    back = np.empty((num_seconds, num_states), dtype=np.int8)
    for second in range(num_seconds):
        step_before = np.concatenate(([np.inf], steps))
        from_step = step_before < background  # equal costs: from background
        back[second, 0::2] = from_step
        back[second, 1::2] = from_step[:-1] + 1
        background = np.minimum(background, step_before)
        steps = background[:-1] + cost_LK[second]
    # Start at the cheaper of the two last states, at the last step if they are equal.
    state = num_states - 1
    if steps[-1] <= background[-1]:
        state = num_states - 2
    # Walk back from the last second, and place the steps on the way.
    for second in reversed(range(num_seconds)):
        step, is_step = divmod(state, 2)
        if is_step:
            placed_LK[second, step] = 1
        state -= back[second, state]
    assert state == 0, state
    return placed_LK


@METRICS.register
class CrossTaskMetric(Metric[LocalisationOutputs]):
    """The share of steps that are placed at a second where they are done, as a mean over tasks."""

    input_type = LocalisationOutputs
    numbers = (MetricValue("recall", "step localisation, recall, mean over tasks"),)

    def compute(self, outputs: LocalisationOutputs) -> MetricValues:
        """Returns recall, and the recall of every task under its id; fractions."""
        hits = [float(num_hits(video)) for video in outputs.videos]
        return recall_by_task(outputs.videos, hits)

    def chance(self, outputs: LocalisationOutputs) -> MetricValues:
        """Returns the expected recall if steps are placed in order at uniformly drawn seconds."""
        hits = [expected_hits(video.done) for video in outputs.videos]
        return recall_by_task(outputs.videos, hits)


def recall_by_task(
    videos: Sequence[PlacedVideo], hits: Sequence[float]
) -> MetricValues:
    """Returns the recall of every task that has steps in its videos, and `recall`, their mean.

    The mean is NaN if no task has any.

    Args:
        hits: number of steps of each video that are placed where they are done.
    """
    total_hits: dict[str, float] = defaultdict(float)
    total_steps: dict[str, int] = defaultdict(int)
    for video, video_hits in zip(videos, hits, strict=True):
        total_hits[video.task] += video_hits
        total_steps[video.task] += num_steps_done(video)
    recalls = {}
    for task, num_steps in total_steps.items():
        if num_steps:
            recalls[task] = total_hits[task] / num_steps
    mean = float(np.mean(list(recalls.values())))
    return recalls | {"recall": mean}


def num_hits(video: PlacedVideo) -> int:
    """Returns the number of steps that are placed at a second where they are done."""
    hits_LK = video.done * video.placed
    return int(hits_LK.sum())


def num_steps_done(video: PlacedVideo) -> int:
    """Returns the number of steps that are done at any second."""
    done_K = video.done.any(axis=0)
    return int(done_K.sum())


def expected_hits(done_LK: np.ndarray) -> float:
    """Returns the expected hits if K of the L seconds are drawn uniformly and taken in order.

    Step k (from 0) is at second l with probability C(l, k) C(L-1-l, K-1-k) / C(L, K).

    Args:
        done_LK: 0 or 1.
    """
    num_seconds, num_steps = done_LK.shape
    if num_seconds < num_steps:
        return 0.0
    choose = np.vectorize(math.comb, otypes=[np.float64])
    # Ways to choose the seconds of the steps before step k, and of those after it.
    second_L = np.arange(num_seconds)
    step_K = np.arange(num_steps)
    before_LK = choose(second_L[:, None], step_K)
    after_LK = before_LK[::-1, ::-1]
    ways_LK = done_LK * before_LK * after_LK
    num_ways = math.comb(num_seconds, num_steps)
    return float(ways_LK.sum() / num_ways)


@prediction_sections.register
def _prediction_sections(
    outputs: LocalisationOutputs, run: EvaluationRun
) -> list[Section]:
    # deferred: matplotlib
    from mmpt.endtasks.crosstask.report import localisation_sections

    return localisation_sections(outputs, run)
