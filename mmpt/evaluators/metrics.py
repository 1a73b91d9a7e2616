"""Retrieval metrics: recall and median rank of clips, recall of whole videos, as fractions."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmpt.evaluators import full_video, functional
from mmpt.evaluators.base import METRICS, Metric, MetricValue, MetricValues, prefixed
from mmpt.evaluators.full_video import Lengths, Score
from mmpt.evaluators.functional import RECALL_AT, ranks_from_vectors
from mmpt.evaluators.predictors import BGRetrievalOutputs, RetrievalOutputs


def recall_numbers(
    title: str, prefix: str, *, is_detail: bool = False
) -> tuple[MetricValue, ...]:
    """Returns `<prefix>R1`, `<prefix>R5` and `<prefix>R10`, shown as `<title>, R@1` and so on.

    Args:
        is_detail: `R1` is also a detail, as the others are.
    """
    numbers = []
    for k in RECALL_AT:
        number = MetricValue(
            f"{prefix}R{k}", f"{title}, R@{k}", is_detail=is_detail or k > 1
        )
        numbers.append(number)
    return tuple(numbers)


@METRICS.register
class RetrievalMetric(Metric[RetrievalOutputs]):
    """The recall and median rank from text to video (R1..) and from video to text (v2t-R1..)."""

    input_type = RetrievalOutputs
    numbers = (
        *recall_numbers("clip, text to video", ""),
        MetricValue("MR", "clip, text to video, median rank", "rank"),
        *recall_numbers("clip, video to text", "v2t-"),
        MetricValue("v2t-MR", "clip, video to text, median rank", "rank"),
    )

    def compute(self, outputs: RetrievalOutputs) -> MetricValues:
        """Returns R1, R5, R10 (fractions) and MR (1 is best) of both directions."""
        text_ND = outputs.pooled_text
        video_ND = outputs.pooled_video
        to_video_N = ranks_from_vectors(text_ND, video_ND)
        to_text_N = ranks_from_vectors(video_ND, text_ND)
        to_text = functional.retrieval_metrics(to_text_N)
        return functional.retrieval_metrics(to_video_N) | prefixed("v2t-", to_text)

    def chance(self, outputs: RetrievalOutputs) -> MetricValues:
        """Returns the expectation for independent random scores."""
        chance = functional.chance_metrics(len(outputs.clips))
        return chance | prefixed("v2t-", chance)

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the text-to-video line of the release."""
        recalls = _recall_line(result, prefix="")
        return f"{recalls} - Median R: {result['MR']:.1f}"


class ScoringMethod(NamedTuple):
    """A method that scores a paragraph against a whole video."""

    prefix: str
    """Prefix of the names of its numbers."""
    title: str
    score: Score
    is_detail: bool = False
    """True: short tables leave its numbers out."""


def _scoring_methods(*, background: bool) -> tuple[ScoringMethod, ...]:
    """Returns the six scoring methods. `background` does not change the caption average."""
    dtw = partial(full_video.dtw, background=background)
    otam = partial(full_video.otam, background=background)
    corrected_dtw = partial(dtw, form="corrected")
    corrected_otam = partial(otam, form="corrected")
    transport = partial(full_video.optimal_transport, background=background)
    return (
        ScoringMethod("", "caption average", full_video.caption_average),
        ScoringMethod("DTW-", "DTW as published", dtw),
        ScoringMethod("OTAM-", "OTAM as published", otam),
        ScoringMethod("DTW-corrected-", "DTW corrected", corrected_dtw, is_detail=True),
        ScoringMethod(
            "OTAM-corrected-", "OTAM corrected", corrected_otam, is_detail=True
        ),
        ScoringMethod("OT-", "OT", transport),
    )


def _numbers(methods: tuple[ScoringMethod, ...], what: str) -> tuple[MetricValue, ...]:
    numbers: tuple[MetricValue, ...] = ()
    for method in methods:
        title = f"{what}, {method.title}"
        numbers += recall_numbers(title, method.prefix, is_detail=method.is_detail)
    return numbers


Vectors = tuple[np.ndarray, np.ndarray, Lengths]
"""Captions float32 [N, D], clips or windows float32 [M, D], and lengths. The rows of both matrices
are grouped by video and in time order.
"""


class WholeVideoMetric(Metric[Any]):
    """The recall of videos retrieved by their paragraphs, for several scoring methods.

    The plain names (R1.., DTW-R1.., OTAM-R1..) are the published numbers. In the release, DTW and
    OTAM have defects in their padding, which the `corrected` numbers do not have. OT (plain
    Sinkhorn with epsilon 1) is an extension without published numbers.
    """

    methods: ClassVar[tuple[ScoringMethod, ...]]

    @abstractmethod
    def vectors(self, outputs: Any) -> Vectors:
        """Returns the vectors of the test set, grouped and in order."""

    def compute(self, outputs: Any) -> MetricValues:
        """Returns R1, R5, R10 (fractions) of every scoring method."""
        text_ND, video_MD, lengths = self.vectors(outputs)
        scores = {method.prefix: method.score for method in self.methods}
        ranks = full_video.paragraph_ranks(text_ND, video_MD, lengths, scores)
        result: MetricValues = {}
        for prefix, ranks_n in ranks.items():
            recalls = functional.recalls(ranks_n)
            result |= prefixed(prefix, recalls)
        return result

    def chance(self, outputs: Any) -> MetricValues:
        """Returns k/n for n videos. This is exact if all paragraphs have the same length."""
        num_videos = len(set(outputs.video_ids))
        chance = functional.chance_metrics(num_videos)
        del chance["MR"]
        result: MetricValues = {}
        for method in self.methods:
            result |= prefixed(method.prefix, chance)
        return result

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns one line with a part per published scoring method."""
        average = _recall_line(result, "")
        dtw = _recall_line(result, "DTW-")
        otam = _recall_line(result, "OTAM-")
        return f"Caption Average: {average} | DTW: {dtw} | OTAM: {otam}"


@METRICS.register
class FullVideoRetrievalMetric(WholeVideoMetric):
    """The recall of whole videos without background: of their clips with captions."""

    input_type = RetrievalOutputs
    methods = _scoring_methods(background=False)
    numbers = _numbers(methods, "full video")

    def vectors(self, outputs: RetrievalOutputs) -> Vectors:
        """Returns both vectors, sorted by video and by time."""
        starts_s = [clip.start_s or 0.0 for clip in outputs.clips]
        grouping = full_video.group_by_video(outputs.video_ids, starts_s)
        lengths = Lengths.of(grouping.lengths)
        text_ND = outputs.pooled_text[grouping.order]
        video_ND = outputs.pooled_video[grouping.order]
        return text_ND, video_ND, lengths


@METRICS.register
class FullVideoBGRetrievalMetric(WholeVideoMetric):
    """The recall of whole videos with their background, that is of windows of the whole video."""

    input_type = BGRetrievalOutputs
    methods = _scoring_methods(background=True)
    numbers = _numbers(methods, "full video with background")

    def vectors(self, outputs: BGRetrievalOutputs) -> Vectors:
        """Returns the vectors as they are."""
        lengths = Lengths.of(outputs.num_captions, outputs.num_windows)
        return outputs.pooled_text, outputs.pooled_video, lengths


def _recall_line(result: Mapping[str, float], prefix: str) -> str:
    """Returns the recalls whose names have a prefix, on one line."""
    parts = []
    for k in RECALL_AT:
        recall = result[f"{prefix}R{k}"]
        parts.append(f"R@{k}: {recall:.4f}")
    return " - ".join(parts)
