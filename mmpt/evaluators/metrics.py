"""Retrieval metrics: recall and median rank of clips, recall of whole videos, as fractions."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmpt.evaluators import full_video, functional
from mmpt.evaluators.base import METRICS, Metric, Number, prefixed
from mmpt.evaluators.full_video import Lengths, Score
from mmpt.evaluators.functional import RECALL_AT, ranks_from_vectors
from mmpt.evaluators.predictors import BGRetrievalOutputs, RetrievalOutputs


def recall_numbers(title: str, prefix: str) -> tuple[Number, ...]:
    """Returns `<prefix>R1`, `<prefix>R5` and `<prefix>R10`, shown as `<title>, R@1` and so on."""
    return tuple(Number(f"{prefix}R{k}", f"{title}, R@{k}") for k in RECALL_AT)


@METRICS.register
class RetrievalMetric(Metric[RetrievalOutputs]):
    """The recall and median rank from text to video (R1..) and from video to text (v2t-R1..)."""

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
        to_video = functional.retrieval_metrics(ranks_from_vectors(text_ND, video_ND))
        to_text = functional.retrieval_metrics(ranks_from_vectors(video_ND, text_ND))
        return to_video | prefixed("v2t-", to_text)

    def chance(self, outputs: RetrievalOutputs) -> dict[str, float]:
        """Returns the expectation for independent random scores."""
        chance = functional.chance_metrics(len(outputs.clips))
        return chance | prefixed("v2t-", chance)

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the text-to-video line of the release."""
        return f"{_recall_line(result, '')} - Median R: {result['MR']:.1f}"


class Way(NamedTuple):
    """A way to score a paragraph against a whole video."""

    prefix: str
    """Prefix of the names of its numbers."""
    title: str
    score: Score


def _ways(*, background: bool) -> tuple[Way, ...]:
    """Returns the six ways, whose average over captions is the same with and without background."""
    dtw = partial(full_video.dtw, background=background)
    otam = partial(full_video.otam, background=background)
    transport = partial(full_video.optimal_transport, background=background)
    return (
        Way("", "caption average", full_video.caption_average),
        Way("DTW-", "DTW as published", dtw),
        Way("OTAM-", "OTAM as published", otam),
        Way("DTW-corrected-", "DTW corrected", partial(dtw, form="corrected")),
        Way("OTAM-corrected-", "OTAM corrected", partial(otam, form="corrected")),
        Way("OT-", "OT", transport),
    )


def _numbers(ways: tuple[Way, ...], what: str) -> tuple[Number, ...]:
    return tuple(
        number for way in ways for number in recall_numbers(f"{what}, {way.title}", way.prefix)
    )


class WholeVideoMetric(Metric[Any]):
    """The recall of paragraphs that look for their video, by several ways to score them.

    The plain names (R1.., DTW-R1.., OTAM-R1..) are the published numbers. In the release, DTW and
    OTAM have defects in their padding, which the `corrected` numbers do not have. OT (plain
    Sinkhorn with epsilon 1) is an extension without published numbers.
    """

    ways: ClassVar[tuple[Way, ...]]

    @abstractmethod
    def vectors(self, outputs: Any) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns captions float32 [N, D], clips or windows float32 [M, D], and lengths.

        Both are grouped by video and in time order.
        """

    def compute(self, outputs: Any) -> dict[str, float]:
        """Returns R1, R5, R10 (fractions) of every way."""
        scores = {way.prefix: way.score for way in self.ways}
        result: dict[str, float] = {}
        ranks = full_video.paragraph_ranks(*self.vectors(outputs), scores)
        for prefix, ranks_n in ranks.items():
            result |= prefixed(prefix, functional.recalls(ranks_n))
        return result

    def chance(self, outputs: Any) -> dict[str, float]:
        """Returns k/n for n videos. This is exact if all paragraphs have the same length."""
        chance = functional.chance_metrics(len(set(outputs.video_ids)))
        return {f"{way.prefix}R{k}": chance[f"R{k}"] for way in self.ways for k in RECALL_AT}

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns one line with a part per published way to score."""
        titles = (("Caption Average", ""), ("DTW", "DTW-"), ("OTAM", "OTAM-"))
        return " | ".join(f"{title}: {_recall_line(result, prefix)}" for title, prefix in titles)


@METRICS.register
class FullVideoRetrievalMetric(WholeVideoMetric):
    """The recall of whole videos without background, that is of their clips with captions."""

    takes = RetrievalOutputs
    ways = _ways(background=False)
    numbers = _numbers(ways, "full video")

    def vectors(self, outputs: RetrievalOutputs) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns both vectors, sorted by video and by time."""
        starts_s = [clip.start_s or 0.0 for clip in outputs.clips]
        order, lengths, _ = full_video.group_by_video(outputs.video_ids, starts_s)
        return outputs.pooled_text[order], outputs.pooled_video[order], Lengths.of(lengths)


@METRICS.register
class FullVideoBGRetrievalMetric(WholeVideoMetric):
    """The recall of whole videos with their background, that is of windows of the whole video."""

    takes = BGRetrievalOutputs
    ways = _ways(background=True)
    numbers = _numbers(ways, "full video with background")

    def vectors(self, outputs: BGRetrievalOutputs) -> tuple[np.ndarray, np.ndarray, Lengths]:
        """Returns the vectors as they are."""
        lengths = Lengths.of(outputs.num_captions, outputs.num_windows)
        return outputs.pooled_text, outputs.pooled_video, lengths


def _recall_line(result: Mapping[str, float], prefix: str) -> str:
    return " - ".join(f"R@{k}: {result[f'{prefix}R{k}']:.4f}" for k in RECALL_AT)
