"""DiDeMo: second-by-second scores of a sentence in a video, and how well the ranking of moments agrees with people.

Legend: B queries of a batch, N queries in all, F video slots, S seconds in which moments lie (30), M moments (21),
A people who judged a query, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch

from mmpt.config.schema import DatasetConfig
from mmpt.endtasks.didemo.data import DiDeMoBatch
from mmpt.endtasks.didemo.moments import (
    MOMENTS,
    NUM_SECONDS,
    Form,
    moment_metrics,
    moment_scores,
    rank_moments,
)
from mmpt.errors import ConfigError
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
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

_CHANCE_DRAWS = 50


@dataclass(frozen=True, kw_only=True)
class MomentOutputs(Outputs):
    """How well each second of its video fits each query, from which moments are scored and ranked."""

    second_scores: np.ndarray  # float32 [N, S]: dot products with the sentence, also for padding
    num_seconds: np.ndarray  # int64 [N]: real seconds of the first S, at least 1
    times: (
        np.ndarray
    )  # int64 [N, A, 2]: first and last piece that a person chose, -1 where there is none
    video_ids: list[str]  # [N]

    def ranking(self, form: Form) -> np.ndarray:
        """Return the numbers of the moments, best first, int64 [N, M]; -1 at the end for those left out."""
        return rank_moments(
            moment_scores(self.second_scores, self.num_seconds, form), self.num_seconds, form
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fields, the moments [M, 2] and the published ranking of their numbers, -1 for none."""
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
    """Dot products of every second's hidden state with the pooled sentence; each video is embedded once."""

    makes = MomentOutputs
    reads: ClassVar[Mapping[str, int]] = {
        "caps": 1,
        "cmasks": 1,
        "vfeats": 2,
        "vmasks": 1,
        "times": 2,
    }

    def __init__(self, config: DatasetConfig):
        super().__init__(config)
        if config.max_video_len is not None and config.max_video_len < NUM_SECONDS:
            problem = (
                f"`dataset.max_video_len` must be at least the {NUM_SECONDS} seconds in which moments lie, but is "
                f"{config.max_video_len}."
            )
            raise ConfigError("dataset", [problem])

    def __call__(self, model: Any, loader: BatchLoader, device: torch.device) -> MomentOutputs:
        """Run `model` over `loader`; the model stays on `device`.

        Args:
            model: a two-tower model such as `MMFusionSeparate`.
            loader: batches with caps int64 [B, T], cmasks bool [B, T], vfeats float16/32 [B, F, 512],
                vmasks bool [B, F], times int64 [B, A, 2] and video_id.
        Raises:
            DataError: the test set is empty.
            CheckpointError: the model gives vectors that are not finite.
        """
        scores: list[torch.Tensor] = []
        num_seconds: list[torch.Tensor] = []
        times: list[torch.Tensor] = []
        video_ids: list[str] = []
        known: dict[str, torch.Tensor] = {}
        with evaluating(model.to(device)):
            for batch in progress(loader, len(loader), "test batches embedded", logger):
                inputs = model_inputs(batch, model, device)
                states_BSD = second_states(model, inputs, batch["video_id"], known)
                text_BD = model.forward_text(inputs["caps"], inputs["cmasks"])[0].float()
                check_finite("sentences", text_BD)
                scores.append(torch.einsum("bsd,bd->bs", states_BSD, text_BD).cpu())
                num_seconds.append(batch["vmasks"][:, :NUM_SECONDS].sum(dim=1))
                times.append(cast(DiDeMoBatch, batch)["times"])
                video_ids.extend(batch["video_id"])
        check_not_empty(video_ids)
        return MomentOutputs(
            second_scores=torch.cat(scores).numpy(),
            num_seconds=torch.cat(num_seconds).numpy(),
            times=torch.cat(times).numpy(),
            video_ids=video_ids,
        )


def second_states(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    video_ids: Sequence[str],
    known: dict[str, torch.Tensor],
) -> torch.Tensor:
    """Return the video tower's states of the first seconds, padding included, float32 [B, S, D].

    Args:
        model: with `forward_video` of `MMFusionSeparate`.
        inputs: caps, cmasks, vfeats and vmasks of the batch.
        video_ids: [B].
        known: states [S, D] by video id; those of new videos are added.
    Raises:
        CheckpointError: states that are not finite.
    """
    new = [
        row
        for row, video in enumerate(video_ids)
        if video not in known and video not in video_ids[:row]
    ]
    if new:
        rows = {name: value[new] for name, value in inputs.items()}
        states = model.forward_video(**rows, output_hidden_states=True)  # with those of padding
        states_bSD = states[:, 1 : NUM_SECONDS + 1].float()  # [CLS] is first
        check_finite("videos", states_bSD.flatten(1))
        known.update(zip((video_ids[row] for row in new), states_bSD, strict=True))
    return torch.stack([known[video] for video in video_ids])


@METRICS.register
class DiDeMoMetric(Metric[MomentOutputs]):
    """Mean rank of the chosen moments at most 1 (rank1) or 5 (rank5), and mean IoU of the first moment (miou).

    Of the four or more judgements of a query the three nearest count, as in Hendricks et al. (arXiv 1708.01641).
    """

    takes = MomentOutputs
    numbers = (
        Number("rank1", "moment, R@1, as published"),
        Number("rank5", "moment, R@5, as published"),
        Number("miou", "moment, mean IoU, as published"),
        Number("real-rank1", "moment, R@1, corrected"),
        Number("real-rank5", "moment, R@5, corrected"),
        Number("real-miou", "moment, mean IoU, corrected"),
    )

    def compute(self, outputs: MomentOutputs) -> dict[str, float]:
        """Return the shares and the mean, fractions, in both forms."""
        released, corrected = outputs.ranking("released"), outputs.ranking("corrected")
        return _both(
            moment_metrics(released, outputs.times), moment_metrics(corrected, outputs.times)
        )

    def chance(self, outputs: MomentOutputs) -> dict[str, float]:
        """Return the mean over 50 draws of random scores for every query, from a fixed seed."""
        rng = np.random.default_rng(1)
        results = []
        for _ in range(_CHANCE_DRAWS):
            scores_NM = rng.random((len(outputs.times), len(MOMENTS)))
            rankings = [
                rank_moments(scores_NM, outputs.num_seconds, form)
                for form in ("released", "corrected")
            ]
            results.append(_both(*(moment_metrics(ranking, outputs.times) for ranking in rankings)))
        return {name: float(np.mean([result[name] for result in results])) for name in results[0]}

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the published form on one line."""
        return f"rank1: {result['rank1']:.4f} - rank5: {result['rank5']:.4f} - miou: {result['miou']:.4f}"


def _both(released: dict[str, float], corrected: dict[str, float]) -> dict[str, float]:
    return {**released, **{f"real-{name}": value for name, value in corrected.items()}}
