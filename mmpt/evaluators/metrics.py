"""Metrics by the names that YAMLs use: each reads a predictor's outputs and returns named fractions, not percent.

Legend: N captions and N clips, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from mmpt.evaluators import full_video
from mmpt.evaluators.functional import chance_metrics, recalls, retrieval_metrics
from mmpt.registry import Registry
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class ClipId(NamedTuple):
    """Which seconds of which video a clip is; without times it is the whole video."""

    video_id: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalOutputs:
    """What a retrieval predictor makes of a test set; caption n belongs to clip n."""

    scores: np.ndarray  # float32 [N, N]: captions x clips, dot products of the pooled vectors
    pooled_text: np.ndarray  # float32 [N, D]
    pooled_video: np.ndarray  # float32 [N, D]
    clips: list[ClipId]  # [N]


class Metric(ABC):
    """Numbers of one kind; the first of `names` decides which of several checkpoints is best."""

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return a number for each of `names`."""

    @abstractmethod
    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return what a model that scores at random is expected to reach on the same test set."""

    @abstractmethod
    def summary(self, result: Mapping[str, float]) -> str:
        """Return `result` in the words of the release, for the log."""

    def best(self, result: Mapping[str, float]) -> float:
        """Return the number that checkpoints are compared by."""
        return result[self.names[0]]


METRICS: Registry[Metric] = Registry("metric")


@METRICS.register
class RetrievalMetric(Metric):
    """Recall and median rank of captions looking for their clip (R1..), and of clips for their caption (v2t-R1..)."""

    names = ("R1", "R5", "R10", "MR", "v2t-R1", "v2t-R5", "v2t-R10", "v2t-MR")

    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return R1, R5, R10 (fractions) and MR (1 is best) of both directions."""
        return _both_directions(retrieval_metrics(outputs.scores), retrieval_metrics(outputs.scores.T))

    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return the expectation for independent random scores."""
        chance = chance_metrics(len(outputs.scores))
        return _both_directions(chance, chance)

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the text-to-video line of the release."""
        return f"{_recall_line(result, '')} - Median R: {result['MR']:.1f}"


@METRICS.register
class FullVideoRetrievalMetric(Metric):
    """Recall of whole paragraphs looking for their video, by caption average (R1..), DTW and OTAM.

    Args:
        form: `released` has the padding defects that the published numbers include, `corrected` has not.
    """

    names = ("R1", "R5", "R10", "DTW-R1", "DTW-R5", "DTW-R10", "OTAM-R1", "OTAM-R5", "OTAM-R10")
    prefixes: ClassVar[tuple[str, ...]] = ("", "DTW-", "OTAM-")

    def __init__(self, form: full_video.Form = "released"):
        self.form = form

    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return R1, R5, R10 (fractions) of the three ways to score a paragraph against a video."""
        grouping = _group(outputs.clips)
        if (np.diff(grouping.order) != 1).any():
            logger.warning("clips are not listed video by video in time order; regrouped before they are aligned")
        scores_NN = outputs.scores[np.ix_(grouping.order, grouping.order)]
        by_prefix = {
            "": full_video.caption_average(scores_NN, grouping.lengths),
            "DTW-": full_video.dtw(scores_NN, grouping.lengths, self.form),
            "OTAM-": full_video.otam(scores_NN, grouping.lengths, self.form),
        }
        return {prefix + name: value for prefix, nn in by_prefix.items() for name, value in recalls(nn).items()}

    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return k/n for n videos: exact when paragraphs are of equal length, near it otherwise."""
        chance = chance_metrics(len(_group(outputs.clips).videos))
        return {prefix + name: chance[name] for prefix in self.prefixes for name in ("R1", "R5", "R10")}

    def summary(self, result: Mapping[str, float]) -> str:
        """Return one line with a part per way to score."""
        titles = zip(("Caption Average", "DTW", "OTAM"), self.prefixes, strict=True)
        return " | ".join(f"{title}: {_recall_line(result, prefix)}" for title, prefix in titles)


def _both_directions(text_to_video: dict[str, float], video_to_text: dict[str, float]) -> dict[str, float]:
    return {**text_to_video, **{f"v2t-{name}": value for name, value in video_to_text.items()}}


def _recall_line(result: Mapping[str, float], prefix: str) -> str:
    return " - ".join(f"R@{k}: {result[f'{prefix}R{k}']:.4f}" for k in (1, 5, 10))


def _group(clips: list[ClipId]) -> full_video.Grouping:
    starts_s = [0.0 if clip.start_s is None else clip.start_s for clip in clips]
    return full_video.group_by_video([clip.video_id for clip in clips], starts_s)
