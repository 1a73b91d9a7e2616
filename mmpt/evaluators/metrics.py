"""Retrieval metrics by the names that YAMLs use: recall and median rank of clips, recall of whole videos; fractions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mmpt.evaluators import full_video
from mmpt.evaluators.base import METRICS, Metric, Number
from mmpt.evaluators.functional import (
    RECALL_AT,
    chance_metrics,
    ranks_from_scores,
    ranks_from_vectors,
    recalls,
    retrieval_metrics,
)
from mmpt.evaluators.outputs import ClipId, RetrievalOutputs
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


def recall_numbers(title: str, prefix: str) -> tuple[Number, ...]:
    """Return `<prefix>R1`, `<prefix>R5` and `<prefix>R10`, shown as `<title>, R@1` and so on."""
    return tuple(Number(f"{prefix}R{k}", f"{title}, R@{k}") for k in RECALL_AT)


@METRICS.register
class RetrievalMetric(Metric[RetrievalOutputs]):
    """Recall and median rank of captions looking for their clip (R1..), and of clips for their caption (v2t-R1..)."""

    takes = RetrievalOutputs
    numbers = (
        *recall_numbers("clip, text to video", ""),
        Number("MR", "clip, text to video, median rank", "rank"),
        *recall_numbers("clip, video to text", "v2t-"),
        Number("v2t-MR", "clip, video to text, median rank", "rank"),
    )

    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return R1, R5, R10 (fractions) and MR (1 is best) of both directions."""
        text_ND, video_ND = outputs.pooled_text, outputs.pooled_video
        return _both_directions(
            retrieval_metrics(ranks_from_vectors(text_ND, video_ND)),
            retrieval_metrics(ranks_from_vectors(video_ND, text_ND)),
        )

    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Return the expectation for independent random scores."""
        chance = chance_metrics(len(outputs.clips))
        return _both_directions(chance, chance)

    def summary(self, result: Mapping[str, float]) -> str:
        """Return the text-to-video line of the release."""
        return f"{_recall_line(result, '')} - Median R: {result['MR']:.1f}"


@METRICS.register
class FullVideoRetrievalMetric(Metric[RetrievalOutputs]):
    """Recall of whole paragraphs looking for their video, by caption average (R1..), DTW and OTAM.

    Args:
        form: `released` has the padding defects that the published numbers include, `corrected` has not.
    """

    takes = RetrievalOutputs
    numbers = (
        *recall_numbers("full video, caption average", ""),
        *recall_numbers("full video, DTW", "DTW-"),
        *recall_numbers("full video, OTAM", "OTAM-"),
    )
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
        return {
            prefix + name: value
            for prefix, nn in by_prefix.items()
            for name, value in recalls(ranks_from_scores(nn)).items()
        }

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
