"""The report's sections about retrieval: examples, failures, mistaken whole videos, alignments."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.evaluators import METRICS, BGRetrievalOutputs, Outputs, RetrievalOutputs
from mmpt.evaluators.full_video import group_by_video
from mmpt.evaluators.functional import ranks_from_scores, ranks_from_vectors
from mmpt.evaluators.metrics import WholeVideoMetric
from mmpt.evaluators.predictors import MAX_SAVED
from mmpt.reporting.alignments import (
    MAX_SENTENCES,
    NUM_HEAT_MAPS,
    HeatMap,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.run import EvaluationRun, Section, prediction_sections

MAX_QUERIES = 10_000
"""Largest number of queries that are ranked. Only the first ones of a larger test set are used."""
NUM_EXAMPLES = 6
NUM_FAILURES = 10
NUM_HITS = 5  # best clips shown per query
MIN_SENTENCES = 3
"""Smallest number of timed captions of a video whose alignment is shown."""
NEAR = 10
"""Largest rank that counts as a near miss."""
NUM_VIDEOS = 8
TimedCaption = tuple[float, float, int]
"""Start and end of a caption in seconds, and its position in the test set."""
_PUBLISHED = ("", "DTW-", "OTAM-")
"""Prefixes of the methods of scoring whole videos that papers report."""


@prediction_sections.register
def retrieval_sections(
    outputs: RetrievalOutputs, run: EvaluationRun, max_queries: int = MAX_QUERIES
) -> list[Section]:
    """Returns the sections of clip retrieval: examples, failures, whole videos, alignments."""
    captions = [str(text) for _, text in run.test_items()]
    # Rank 0 is the best one.
    ranks = ranks_from_vectors(outputs.pooled_text[:max_queries], outputs.pooled_video)
    chosen = spread(range(len(ranks)), NUM_EXAMPLES)
    examples = {
        "queries": [
            _query(run, outputs, captions, query, NUM_HITS) for query in chosen
        ],
        "num_queries": len(ranks),
        "num_clips": len(outputs.clips),
        "near": NEAR,
    }
    worst = np.argsort(-ranks, kind="stable")[:NUM_FAILURES]
    missed = worst[ranks[worst] > 0].tolist()
    failures = {
        "queries": [
            _query(run, outputs, captions, query, num_hits=3) for query in missed
        ],
        "near": NEAR,
    }
    # The first caption of each video.
    starts_s = [clip.start_s or 0.0 for clip in outputs.clips]
    grouping = group_by_video(outputs.video_ids, starts_s)
    begins = np.cumsum(grouping.lengths) - grouping.lengths
    first_captions = [captions[position] for position in grouping.order[begins]]
    return [
        Section("Retrieval gallery", "gallery.html", examples),
        Section("Worst failures", "retrieval_failures.html", failures),
        *_whole_video_sections(outputs, run, grouping.videos, first_captions),
        *alignment_section(_heat_maps(outputs, run, captions)),
    ]


def _query(
    run: EvaluationRun,
    outputs: RetrievalOutputs,
    captions: Sequence[str],
    query: int,
    num_hits: int,
) -> dict[str, Any]:
    """Returns the variables of one query for the template.

    Its best clips are shown, and the right clip if it is not among them.

    Args:
        captions: the captions of all clips.
        query: position of the query, which is also the position of the right clip.
        num_hits: number of best clips.
    """
    scores_N = outputs.pooled_video @ outputs.pooled_text[query]
    order = np.argsort(-scores_N, kind="stable").tolist()
    words = captions[query]
    right_rank = order.index(query) + 1
    shown = list(enumerate(order[:num_hits], start=1))
    if right_rank > num_hits:
        shown.append((right_rank, query))
    cards = []
    for rank, clip in shown:
        is_right = clip == query
        card = {
            "rank": rank,
            "score": scores_N[clip],
            "words": captions[clip],
            "clip": outputs.clips[clip],
            "same_words": captions[clip] == words and not is_right,
            "frame": run.frames.uri(outputs.clips[clip]),
            "right": is_right,
        }
        cards.append(card)
    return {"words": words, "rank": right_rank, "cards": cards}


def _heat_maps(
    outputs: RetrievalOutputs, run: EvaluationRun, captions: Sequence[str]
) -> list[HeatMap | None]:
    """Returns the alignments of a few videos that have several timed captions."""
    timed: dict[str, list[TimedCaption]] = defaultdict(list)
    for position, clip in enumerate(outputs.clips):
        if clip.start_s is not None and clip.end_s is not None:
            timed_caption = clip.start_s, clip.end_s, position
            timed[clip.video_id].append(timed_caption)
    fitting = [video for video in timed if len(timed[video]) >= MIN_SENTENCES]
    maps = []
    for video in spread(fitting, NUM_HEAT_MAPS):
        found = sorted(timed[video])[:MAX_SENTENCES]
        starts_s, ends_s, positions = zip(*found, strict=True)
        truth = list(zip(starts_s, ends_s, strict=True))
        # The key of the part of the video from its start to the end of the last caption.
        (video_key, *_), _ = run.item(positions[0])
        key = (video_key, 0, int(max(ends_s)))
        words = [captions[position] for position in positions]
        maps.append(align_video(run, video, key, words, truth))
    return maps


@prediction_sections.register
def background_sections(
    outputs: BGRetrievalOutputs, run: EvaluationRun
) -> list[Section]:
    """Returns the sections about paragraphs with the worst ranks and alignments of some videos."""
    captions = [list(texts) for _, texts in run.test_items()]
    first_captions = [texts[0] for texts in captions]
    sections = _whole_video_sections(outputs, run, outputs.video_ids, first_captions)
    maps = []
    for index in spread(range(len(captions)), NUM_HEAT_MAPS):
        video = outputs.video_ids[index]
        texts = captions[index][:MAX_SENTENCES]
        video_key, _ = run.item(index)
        truth = [None] * len(texts)
        maps.append(align_video(run, video, video_key, texts, truth))
    return sections + alignment_section(maps)


def _whole_video_sections(
    outputs: Outputs,
    run: EvaluationRun,
    videos: Sequence[str],
    first_captions: Sequence[str],
) -> list[Section]:
    """Returns a section about the paragraphs with the worst ranks for each metric of whole videos.

    Test sets of more than `MAX_SAVED` captions or clips are left out.

    Args:
        videos: video ids, in the order of the metric's vectors.
        first_captions: the first caption of each video.
    """
    sections = []
    for name in run.config.metric:
        metric = METRICS.get(name, "metric")()
        if not isinstance(metric, WholeVideoMetric):
            continue
        text_ND, video_MD, lengths = metric.vectors(outputs)
        if max(len(text_ND), len(video_MD)) > MAX_SAVED:
            continue
        scores_NM = text_ND @ video_MD.T
        methods = [method for method in metric.methods if method.prefix in _PUBLISHED]
        scores = [method.score(scores_NM, lengths) for method in methods]
        paragraphs = []
        for video, places in _mistaken(scores):
            paragraph = {
                "video": videos[video],
                "words": first_captions[video],
                "num_captions": lengths.captions[video],
                "places": [(rank, videos[first]) for rank, first in places],
            }
            paragraphs.append(paragraph)
        titles = [f"rank by {method.title}" for method in methods]
        data = {"methods": titles, "num_videos": len(videos), "paragraphs": paragraphs}
        sections.append(Section("Whole videos mistaken", "whole_videos.html", data))
    return sections


def _mistaken(scores: Sequence[np.ndarray]) -> list[tuple[int, list[tuple[int, int]]]]:
    """Returns the paragraphs whose own videos rank worst, the worst first.

    They are sorted by the rank by the first scoring method, then by the second, and so on.
    Paragraphs whose own video ranks first by all methods are left out.

    Args:
        scores: for each method, the scores of all paragraphs and videos [n, n].
    Returns:
        Each paragraph with its places: for each method, the rank from 1, and the best video.
    """
    ranks = [ranks_from_scores(scores_nn) + 1 for scores_nn in scores]
    firsts = [scores_nn.argmax(axis=1) for scores_nn in scores]
    # `lexsort` sorts by its last key first.
    keys = [-ranks_n for ranks_n in reversed(ranks)]
    found = []
    for paragraph in np.lexsort(keys)[:NUM_VIDEOS].tolist():
        places = []
        for ranks_n, firsts_n in zip(ranks, firsts, strict=True):
            places.append((ranks_n[paragraph], firsts_n[paragraph]))
        if any(rank > 1 for rank, _ in places):
            found.append((paragraph, places))
    return found
