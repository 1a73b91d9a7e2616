"""DiDeMo: scores of a sentence with every second of a video, and the ranking of moments by them.

Legend: B queries of a batch, N queries in all, F video slots, R feature rows of the S seconds in
which moments lie (30), M moments (21), A people who judged a query, D hidden size.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.didemo import moments
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, Form
from mmpt.errors import ConfigError
from mmpt.evaluators import (
    CLIPS,
    METRICS,
    PREDICTORS,
    Metric,
    MetricValue,
    Outputs,
    Predictor,
)
from mmpt.evaluators.base import MetricValues, Part, Prepared, prefixed, require_finite
from mmpt.processors.window_aligner import average_seconds, num_seconds
from mmpt.reporting import EvaluationRun, Section, prediction_sections

_CHANCE_DRAWS = 50


@dataclass(frozen=True, kw_only=True)
class MomentOutputs(Outputs):
    """The scores of every second for each query. Moments are scored and ranked from them."""

    # float32 [N, S]: dot products with the sentence, also for padding
    second_scores: np.ndarray
    num_seconds: np.ndarray  # int64 [N]: real seconds of the first S, at least 1
    # int64 [N, A, 2]: first and last piece that a person chose, -1 for none
    times: np.ndarray
    video_ids: list[str]  # [N]

    def ranking(self, form: Form) -> np.ndarray:
        """Returns the numbers of the moments, best first, int64 [N, M]. A row ends with -1 for each
        moment that is left out.
        """
        scores_NM = moments.moment_scores(self.second_scores, self.num_seconds, form)
        return moments.rank_moments(scores_NM, self.num_seconds, form)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the fields, the moments [M, 2], and the published ranking of their numbers."""
        return {
            "second_scores": self.second_scores,
            "num_seconds": self.num_seconds,
            "times": self.times,
            "video_id": np.array(self.video_ids),
            "moments": np.array(MOMENTS),
            "ranking": self.ranking("released"),
        }


@PREDICTORS.register
class DiDeMoPredictor(Predictor[MomentOutputs]):
    """A predictor of the dot products of every second's hidden state with the pooled sentence.

    The model is a two-tower model such as `MMFusionSeparate`. Batches hold caps int64 [B, T],
    cmasks bool [B, T], vfeats float16/32 [B, F, width], vmasks bool [B, F], times int64 [B,
    A, 2] and video_id.
    """

    output_type = MomentOutputs
    reads = CLIPS | {"times": 2}

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if config.max_video_len is not None and config.max_video_len < NUM_SECONDS:
            problem = (
                f"`dataset.max_video_len` must be at least the {NUM_SECONDS} seconds in which "
                f"moments lie, but is {config.max_video_len}."
            )
            raise ConfigError("dataset", [problem])

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields the scores of the seconds for each batch of queries."""
        fps = self.config.feature_fps
        num_rows = self.config.num_rows(NUM_SECONDS)
        # The states of a video, which four queries share.
        known_RD: dict[str, torch.Tensor] = {}
        for batch, inputs in batches:
            videos = batch["video_id"]
            new = [row for row, video in enumerate(videos) if video not in known_RD]
            if new:
                rows = {name: value[new] for name, value in inputs.items()}
                states_bTD = model.forward_video(**rows, output_hidden_states=True)
                # [CLS] is first.
                states_bRD = states_bTD[:, 1 : num_rows + 1].float()
                for row, states_RD in zip(new, states_bRD, strict=True):
                    known_RD[videos[row]] = states_RD
            states_BRD = torch.stack([known_RD[video] for video in videos])
            pooled_BD, *_ = model.forward_text(inputs["caps"], inputs["cmasks"])
            scores_BR = torch.einsum("brd,bd->br", states_BRD, pooled_BD.float())
            scores_RB = require_finite(scores_BR, "queries").cpu().numpy().T
            scores_SB = average_seconds(scores_RB, fps)[:NUM_SECONDS]
            real_rows_B = batch["vmasks"][:, :num_rows].sum(dim=1)
            lengths_B = [num_seconds(rows, fps) for rows in real_rows_B.tolist()]
            yield {
                "second_scores": scores_SB.T,
                "num_seconds": torch.tensor(lengths_B).clamp(max=NUM_SECONDS),
                "times": batch["times"],
                "video_ids": videos,
            }


@METRICS.register
class DiDeMoMetric(Metric[MomentOutputs]):
    """The agreement of a ranking of moments with the judgements of people.

    rank1 and rank5 are the shares of queries whose chosen moments have a mean rank of at most 1 or
    5. miou is the mean intersection over union of the first moment with the chosen ones. A query
    has four or more judgements, and the three nearest ones count, as in Hendricks et al. (arXiv
    1708.01641).
    """

    input_type = MomentOutputs
    numbers = (
        MetricValue("rank1", "moment, R@1, as published"),
        MetricValue("rank5", "moment, R@5, as published", is_detail=True),
        MetricValue("miou", "moment, mean IoU, as published"),
        MetricValue("real-rank1", "moment, R@1, corrected", is_detail=True),
        MetricValue("real-rank5", "moment, R@5, corrected", is_detail=True),
        MetricValue("real-miou", "moment, mean IoU, corrected", is_detail=True),
    )

    def compute(self, outputs: MomentOutputs) -> MetricValues:
        """Returns rank1, rank5 and miou (fractions) in both forms."""
        return _both_forms(outputs.ranking, outputs.times)

    def chance(self, outputs: MomentOutputs) -> MetricValues:
        """Returns the mean over 50 draws of random scores, from a fixed seed."""
        rng = np.random.default_rng(1)
        num_queries = len(outputs.times)
        draws: dict[str, list[float]] = defaultdict(list)
        for _ in range(_CHANCE_DRAWS):
            scores_NM = rng.random((num_queries, len(MOMENTS)))
            rank = partial(moments.rank_moments, scores_NM, outputs.num_seconds)
            for name, value in _both_forms(rank, outputs.times).items():
                draws[name].append(value)
        return {name: float(np.mean(values)) for name, values in draws.items()}


def _both_forms(
    ranking: Callable[[Form], np.ndarray], times_NA2: np.ndarray
) -> MetricValues:
    """Returns the metrics of the published ranking and, as `real-...`, of the corrected one."""
    released = moments.moment_metrics(ranking("released"), times_NA2)
    corrected = moments.moment_metrics(ranking("corrected"), times_NA2)
    return released | prefixed("real-", corrected)


@prediction_sections.register
def _prediction_sections(outputs: MomentOutputs, run: EvaluationRun) -> list[Section]:
    from mmpt.endtasks.didemo.report import moment_sections  # deferred: matplotlib

    return moment_sections(outputs, run)
