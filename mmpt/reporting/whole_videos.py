"""Whole videos mistaken: the paragraphs that find their video last."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpt.evaluators import METRICS, BGRetrievalOutputs, Outputs
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.evaluators.metrics import WholeVideoMetric
from mmpt.evaluators.predictors import MOST_SAVED
from mmpt.reporting.alignments import (
    MOST_SENTENCES,
    NUM_FIGURES,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.pictures import Section, pictures
from mmpt.reporting.run import Run

NUM_VIDEOS = 8
_PUBLISHED = ("", "DTW-", "OTAM-")


@pictures.register
def background_sections(outputs: BGRetrievalOutputs, run: Run) -> list[Section]:
    """Returns the paragraphs that find their video last, and alignments of some videos."""
    captions = [list(texts) for _, texts in run.test_items()]
    sections = whole_video_sections(
        outputs, run, outputs.video_ids, [texts[0] for texts in captions]
    )
    ends = np.cumsum(outputs.num_captions)
    figures = []
    for video in spread(range(len(captions)), NUM_FIGURES):
        first, texts = ends[video] - len(captions[video]), captions[video][:MOST_SENTENCES]
        text_SD = outputs.pooled_text[first : first + len(texts)]
        key = run.item(video)[0]
        figures.append(
            align_video(run, outputs.video_ids[video], key, texts, text_SD, [None] * len(texts))
        )
    return sections + alignment_section(figures)


def whole_video_sections(
    outputs: Outputs, run: Run, videos: Sequence[str], first_captions: Sequence[str]
) -> list[Section]:
    """Returns the paragraphs that find their video last, where the run scores whole videos.

    Args:
        videos: ids in the order of the metric's vectors.
        first_captions: of each video.
    """
    metrics = [METRICS.get(name, "metric")() for name in run.config.metric]
    return [
        _mistaken(metric, outputs, videos, first_captions)
        for metric in metrics
        if isinstance(metric, WholeVideoMetric)
    ]


def _mistaken(
    metric: WholeVideoMetric,
    outputs: Outputs,
    videos: Sequence[str],
    first_captions: Sequence[str],
) -> Section:
    text_ND, video_MD, lengths = metric.vectors(outputs)
    title, ways = "Whole videos mistaken", [way for way in metric.ways if way.prefix in _PUBLISHED]
    data = {
        "ways": [f"rank by {way.title}" for way in ways],
        "num_videos": len(videos),
        "most": MOST_SAVED,
    }
    if max(len(text_ND), len(video_MD)) > MOST_SAVED:
        return Section(title, "whole_videos.html", data | {"paragraphs": None})
    scores_NM = text_ND @ video_MD.T
    scores = [way.score(scores_NM, lengths) for way in ways]
    ranks = np.stack([ranks_from_scores(scores_nn) for scores_nn in scores])
    firsts = [scores_nn.argmax(axis=1) for scores_nn in scores]
    worst = np.lexsort(-ranks[::-1])[:NUM_VIDEOS]
    paragraphs = []
    for place in worst[ranks[:, worst].any(axis=0)]:
        places = [
            (int(rank[place]) + 1, videos[first[place]])
            for rank, first in zip(ranks, firsts, strict=True)
        ]
        paragraph = {"video": videos[place], "words": first_captions[place], "places": places}
        paragraphs.append(paragraph | {"num_captions": lengths.captions[place]})
    return Section(title, "whole_videos.html", data | {"paragraphs": paragraphs})
