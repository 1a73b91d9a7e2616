"""Step localisation (CrossTask): places every step of a task at one second of a video.

The steps are placed in order, so that their scores are as high as possible. If several placements
have the same score, the rule of `place_steps` decides, as in the release. A model that scores all
seconds alike therefore places the last step at the end of the video, and the others at consecutive
seconds at its beginning. A video with fewer seconds than steps has no placement, and all its steps
count as missed.

Legend: R real seconds of all windows of a video, L its seconds, K steps of its task.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from mmpt.evaluators import METRICS, PREDICTORS, WHOLE_VIDEO, Metric, Number, Outputs, Predictor
from mmpt.evaluators.base import Prepared, finite
from mmpt.losses.precision import upcast
from mmpt.processors.window_aligner import Span, WindowAligner, average_windows
from mmpt.reporting import Run, Section, pictures


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
    makes = LocalisationOutputs
    reads = WHOLE_VIDEO | {"targets": 2, "task": 0}
    model_outputs: ClassVar[Mapping[str, str]] = {"logits": "MMFusionSeparateActionLocalization"}

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[dict[str, Any]]:
        """Yields the placement of the steps of each video."""
        for batch, inputs in batches:
            logits_RK = finite(upcast(self.run(model, inputs)["logits"]).cpu(), "seconds")
            spans = self.config.spans(int(batch["video_len"][0]))
            done_LK = average_rows(batch["targets"][0].numpy(), spans) > 0.5
            log_shares_LK = torch.from_numpy(average_rows(logits_RK.numpy(), spans)).double()
            placed_LK = place_steps(-log_shares_LK.log_softmax(dim=1).numpy())
            task, video_id = batch["task"][0], batch["video_id"][0]
            yield {"videos": [PlacedVideo(task, video_id, done_LK.astype(np.uint8), placed_LK)]}


def average_rows(rows_RK: np.ndarray, spans: list[Span]) -> np.ndarray:
    """Returns the mean of each second over the windows that cover it, float32 [L, K].

    Args:
        rows_RK: the rows of the first window, then of the second, and so on.
        spans: seconds of the windows.
    """
    ends = np.cumsum([end - start for start, end in spans])
    return average_windows(np.split(rows_RK, ends[:-1]), spans)


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
    # even states are background, odd ones are steps.
    num_states = 2 * num_steps + 1
    total = np.full(num_states, np.inf)
    total[0] = 0
    back_by_S = np.empty((num_seconds, num_states), dtype=np.int8)
    for second in range(num_seconds):
        steps, background = total[1::2], total[0::2]
        # The step before each background. It is also the predecessor of the step after it.
        from_step = np.concatenate(([np.inf], steps))
        back_by_S[second, 0::2] = from_step < background
        back_by_S[second, 1::2] = np.where(from_step[:-1] < background[:-1], 2, 1)
        new_background = np.minimum(background, from_step)
        new_steps = np.minimum(background[:-1], from_step[:-1]) + cost_LK[second]
        total = np.empty(num_states)
        total[0::2], total[1::2] = new_background, new_steps
    # Walk back from the cheaper of the two last states.
    state = num_states - 2 if total[-2] <= total[-1] else num_states - 1
    for second in reversed(range(num_seconds)):
        if state % 2:
            placed_LK[second, state // 2] = 1
        state -= back_by_S[second, state]
    assert state == 0, state
    return placed_LK


@METRICS.register
class CrossTaskMetric(Metric[LocalisationOutputs]):
    """The share of steps that are placed at a second where they are done, as a mean over tasks."""

    takes = LocalisationOutputs
    numbers = (Number("recall", "step localisation, recall, mean over tasks"),)

    def compute(self, outputs: LocalisationOutputs) -> dict[str, float]:
        """Returns recall, and the recall of every task under its id; fractions."""
        hits = [float((video.done * video.placed).sum()) for video in outputs.videos]
        return recall_by_task(outputs.videos, hits)

    def chance(self, outputs: LocalisationOutputs) -> dict[str, float]:
        """Returns the expected recall if steps are placed in order at uniformly drawn seconds."""
        hits = [expected_hits(video.done) for video in outputs.videos]
        return recall_by_task(outputs.videos, hits)


def recall_by_task(videos: Sequence[PlacedVideo], hits: Sequence[float]) -> dict[str, float]:
    """Returns the recall of every task that has steps in its videos, and `recall`, their mean.

    The mean is NaN if no task has any.

    Args:
        hits: number of steps of each video that are placed where they are done.
    """
    num_hits: dict[str, float] = defaultdict(float)
    num_steps: dict[str, int] = defaultdict(int)
    for video, hit in zip(videos, hits, strict=True):
        num_hits[video.task] += hit
        num_steps[video.task] += int(video.done.any(axis=0).sum())
    recalls = {task: num_hits[task] / steps for task, steps in num_steps.items() if steps}
    return recalls | {"recall": float(np.mean(list(recalls.values())))}


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
    before_LK = choose(np.arange(num_seconds)[:, None], np.arange(num_steps))
    after_LK = before_LK[::-1, ::-1]
    return float((done_LK * before_LK * after_LK).sum() / math.comb(num_seconds, num_steps))


@pictures.register
def _pictures(outputs: LocalisationOutputs, run: Run) -> list[Section]:
    from mmpt.endtasks.crosstask.report import localisation_sections  # deferred: matplotlib

    return localisation_sections(outputs, run)
