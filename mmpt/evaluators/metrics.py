"""Retrieval metrics: recall and median rank of clips, recall of whole videos, as fractions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from mmpt.evaluators import full_video, full_video_bg
from mmpt.evaluators.base import METRICS, Metric, Number, O_contra
from mmpt.evaluators.full_video import Lengths, Score
from mmpt.evaluators.functional import (
    RECALL_AT,
    chance_metrics,
    ranks_from_vectors,
    recalls,
    retrieval_metrics,
)
from mmpt.evaluators.outputs import BGRetrievalOutputs, RetrievalOutputs
from mmpt.evaluators.warping import Form
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


def recall_numbers(title: str, prefix: str) -> tuple[Number, ...]:
    """Returns `<prefix>R1`, `<prefix>R5` and `<prefix>R10`, shown as `<title>, R@1` and so on."""
    return tuple(Number(f"{prefix}R{k}", f"{title}, R@{k}") for k in RECALL_AT)


@METRICS.register
class RetrievalMetric(Metric[RetrievalOutputs]):
    """Recall and median rank of text to video (R1..) and of video to text (v2t-R1..)."""

    takes = RetrievalOutputs
    numbers = (
        *recall_numbers("clip, text to video", ""),
        Number("MR", "clip, text to video, median rank", "rank"),
        *recall_numbers("clip, video to text", "v2t-"),
        Number("v2t-MR", "clip, video to text, median rank", "rank"),
    )

    def compute(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Returns R1, R5, R10 (fractions) and MR (1 is best) of both directions."""
        text_ND, video_ND = outputs.pooled_text, outputs.pooled_video
        return _both_directions(
            retrieval_metrics(ranks_from_vectors(text_ND, video_ND)),
            retrieval_metrics(ranks_from_vectors(video_ND, text_ND)),
        )

    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Returns the expectation for independent random scores."""
        chance = chance_metrics(len(outputs.clips))
        return _both_directions(chance, chance)

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the text-to-video line of the release."""
        return f"{_recall_line(result, '')} - Median R: {result['MR']:.1f}"


class Way(NamedTuple):
    """One way to score a paragraph against a whole video."""

    prefix: str
    """Prefix of the names of its numbers."""
    title: str
    score: Score


class WholeVideoMetric(Metric[O_contra]):
    """Recall of whole paragraphs looking for their video, in several ways.

    The plain names (R1.., DTW-R1.., OTAM-R1..) are the published numbers, with the padding defects
    of the release in DTW and OTAM; the `corrected` ones are without. OT (plain Sinkhorn, epsilon 1)
    is an extension, published nowhere.
    """

    ways: ClassVar[tuple[Way, ...]]

    @abstractmethod
    def vectors(self, outputs: O_contra) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns captions float32 [N, D], clips or windows float32 [M, D], and lengths.

        Both are grouped by video and in time order.
        """

    @abstractmethod
    def num_videos(self, outputs: O_contra) -> int:
        """Returns how many videos a paragraph chooses from."""

    def compute(self, outputs: O_contra) -> dict[str, float]:
        """Returns R1, R5, R10 (fractions) of every way, from vectors, with scores of some
        paragraphs at a time.
        """
        text_ND, video_MD, lengths = self.vectors(outputs)
        scores = {way.prefix: way.score for way in self.ways}
        chunks = full_video.paragraph_chunks(lengths)
        ranks = [
            full_video.paragraph_ranks(text_ND, video_MD, lengths, scores, chunk)
            for chunk in progress(
                chunks, len(chunks), "parts of the paragraphs scored against all videos", logger
            )
        ]
        return {
            prefix + name: value
            for prefix in scores
            for name, value in recalls(np.concatenate([part[prefix] for part in ranks])).items()
        }

    def chance(self, outputs: O_contra) -> dict[str, float]:
        """Returns k/n for n videos, which is exact when paragraphs are of equal length."""
        chance = chance_metrics(self.num_videos(outputs))
        return {f"{way.prefix}R{k}": chance[f"R{k}"] for way in self.ways for k in RECALL_AT}

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns one line with a part per published way to score."""
        titles = (("Caption Average", ""), ("DTW", "DTW-"), ("OTAM", "OTAM-"))
        return " | ".join(f"{title}: {_recall_line(result, prefix)}" for title, prefix in titles)


class Warping(Protocol):
    """A score by warping, in the published form or without its padding defects."""

    def __call__(
        self, scores_RM: np.ndarray, lengths: Lengths, form: Form = "released"
    ) -> np.ndarray:
        """Returns one score for each row of clips."""


def _ways(dtw: Warping, otam: Warping, optimal_transport: Score) -> tuple[Way, ...]:
    """Returns the six ways, whose average over captions is the same with and without background."""
    return (
        Way("", "caption average", full_video.caption_average),
        Way("DTW-", "DTW as published", dtw),
        Way("OTAM-", "OTAM as published", otam),
        Way("DTW-corrected-", "DTW corrected", partial(dtw, form="corrected")),
        Way("OTAM-corrected-", "OTAM corrected", partial(otam, form="corrected")),
        Way("OT-", "OT", optimal_transport),
    )


def _numbers(ways: tuple[Way, ...], what: str) -> tuple[Number, ...]:
    return tuple(
        number for way in ways for number in recall_numbers(f"{what}, {way.title}", way.prefix)
    )


@METRICS.register
class FullVideoRetrievalMetric(WholeVideoMetric[RetrievalOutputs]):
    """Paragraphs against whole videos without background: the clips with captions."""

    takes = RetrievalOutputs
    ways = _ways(full_video.dtw, full_video.otam, full_video.optimal_transport)
    numbers = _numbers(ways, "full video")

    def vectors(self, outputs: RetrievalOutputs) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns both vectors by video and in time order; warns when they were not."""
        starts_s = [0.0 if clip.start_s is None else clip.start_s for clip in outputs.clips]
        grouping = full_video.group_by_video([clip.video_id for clip in outputs.clips], starts_s)
        lengths = Lengths.of(grouping.lengths)
        if (np.diff(grouping.order) == 1).all():
            return outputs.pooled_text, outputs.pooled_video, lengths
        logger.warning(
            "clips are not listed video by video in time order; regrouped before they are aligned"
        )
        return outputs.pooled_text[grouping.order], outputs.pooled_video[grouping.order], lengths

    def num_videos(self, outputs: RetrievalOutputs) -> int:
        """Returns how many different ids there are."""
        return len({clip.video_id for clip in outputs.clips})


@METRICS.register
class FullVideoBGRetrievalMetric(WholeVideoMetric[BGRetrievalOutputs]):
    """Paragraphs against whole videos with their background, as windows of the whole video."""

    takes = BGRetrievalOutputs
    ways = _ways(full_video_bg.dtw, full_video_bg.otam, full_video_bg.optimal_transport)
    numbers = _numbers(ways, "full video with background")

    def vectors(self, outputs: BGRetrievalOutputs) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns the vectors as they are."""
        return (
            outputs.pooled_text,
            outputs.pooled_video,
            Lengths.of(outputs.num_captions, outputs.num_windows),
        )

    def num_videos(self, outputs: BGRetrievalOutputs) -> int:
        """Returns the number of videos."""
        return len(outputs.video_ids)


def _both_directions(
    text_to_video: dict[str, float], video_to_text: dict[str, float]
) -> dict[str, float]:
    return {**text_to_video, **{f"v2t-{name}": value for name, value in video_to_text.items()}}


def _recall_line(result: Mapping[str, float], prefix: str) -> str:
    return " - ".join(f"R@{k}: {result[f'{prefix}R{k}']:.4f}" for k in RECALL_AT)
