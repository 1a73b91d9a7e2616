"""Retrieval in pictures: queries with their hits, the worst failures, whole videos mistaken; and
multiple choice: wrong answers that score furthest above the right one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.endtasks.msrvtt_qa import QAOutputs
from mmpt.evaluators import METRICS, BGRetrievalOutputs, ClipId, Outputs, RetrievalOutputs
from mmpt.evaluators.full_video import group_by_video
from mmpt.evaluators.functional import ranks_from_scores, ranks_from_vectors
from mmpt.evaluators.metrics import WholeVideoMetric
from mmpt.evaluators.predictors import MOST_SAVED
from mmpt.reporting.alignments import (
    MOST_SENTENCES,
    NUM_FIGURES,
    Figure,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.run import Run, Section, pictures

MOST_QUERIES = 10_000
"""Queries that are ranked again for the pictures; of a larger test set the first ones."""
NUM_EXAMPLES = 6
NUM_FAILURES = 10
NUM_HITS = 5
FEWEST_SENTENCES = 3
"""Timed captions of a video that make an alignment worth showing."""
NEAR = 10
"""Ranks below this count as near misses."""
NUM_VIDEOS = 8
NUM_QUESTIONS = 12
_PUBLISHED = ("", "DTW-", "OTAM-")


@pictures.register
def retrieval_sections(outputs: RetrievalOutputs, run: Run) -> list[Section]:
    """Returns the gallery, the worst failures, whole videos where these are scored, alignments."""
    captions = [str(text) for _, text in run.test_items()]
    clips = outputs.clips
    ranks = ranks_from_vectors(outputs.pooled_text[:MOST_QUERIES], outputs.pooled_video)
    worst = np.argsort(-ranks, kind="stable")[:NUM_FAILURES]
    worst = worst[ranks[worst] > 0].tolist()
    places = spread(range(len(ranks)), NUM_EXAMPLES)
    examples = {
        "queries": [_query(run, outputs, captions, place, NUM_HITS) for place in places],
        "num_queries": len(ranks),
        "num_clips": len(clips),
        "near": NEAR,
    }
    missed = [_query(run, outputs, captions, place, num_hits=3) for place in worst]
    sections = [
        Section("Retrieval gallery", "gallery.html", examples),
        Section("Worst failures", "retrieval_failures.html", {"queries": missed, "near": NEAR}),
    ]
    starts_s = [clip.start_s or 0.0 for clip in clips]
    grouping = group_by_video([clip.video_id for clip in clips], starts_s)
    firsts = grouping.order[np.cumsum(grouping.lengths) - grouping.lengths]
    first_captions = [captions[place] for place in firsts]
    sections += _whole_video_sections(outputs, run, grouping.videos, first_captions)
    return sections + alignment_section(_figures(outputs, run, captions))


def _query(
    run: Run, outputs: RetrievalOutputs, captions: Sequence[str], query: int, num_hits: int
) -> dict[str, Any]:
    """Returns a query with its best clips, and with the right one if it is not among them."""
    scores_N = outputs.pooled_video @ outputs.pooled_text[query]
    order = np.argsort(-scores_N, kind="stable").tolist()
    rank = order.index(query)
    cards = []
    for place in sorted({*range(min(num_hits, len(order))), rank}):
        clip = order[place]
        card = {
            "rank": place + 1,
            "score": scores_N[clip],
            "words": captions[clip],
            "clip": outputs.clips[clip],
            "same_words": clip != query and captions[clip] == captions[query],
            "frame": run.frames.uri(outputs.clips[clip]),
            "right": clip == query,
        }
        cards.append(card)
    return {"words": captions[query], "rank": rank + 1, "cards": cards}


def _figures(outputs: RetrievalOutputs, run: Run, captions: Sequence[str]) -> list[Figure | None]:
    """Aligns the captions of a few videos that have several with times, up to the last one."""
    timed: dict[str, list[tuple[float, float, int]]] = {}
    for place, clip in enumerate(outputs.clips):
        if clip.start_s is not None and clip.end_s is not None:
            timed.setdefault(clip.video_id, []).append((clip.start_s, clip.end_s, place))
    fitting = [video for video, found in timed.items() if len(found) >= FEWEST_SENTENCES]
    figures = []
    for video in spread(fitting, NUM_FIGURES):
        found = sorted(timed[video])[:MOST_SENTENCES]
        truth = [(start_s, end_s) for start_s, end_s, _ in found]
        key = (run.item(found[0][2])[0][0], 0, int(max(end_s for _, end_s in truth)))
        words = [captions[row] for _, _, row in found]
        figures.append(align_video(run, video, key, words, truth))
    return figures


@pictures.register
def background_sections(outputs: BGRetrievalOutputs, run: Run) -> list[Section]:
    """Returns the paragraphs that find their video last, and alignments of some videos."""
    captions = [list(texts) for _, texts in run.test_items()]
    first_captions = [texts[0] for texts in captions]
    sections = _whole_video_sections(outputs, run, outputs.video_ids, first_captions)
    figures = []
    for place in spread(range(len(captions)), NUM_FIGURES):
        video, texts = outputs.video_ids[place], captions[place][:MOST_SENTENCES]
        truth = [None] * len(texts)
        figures.append(align_video(run, video, run.item(place)[0], texts, truth))
    return sections + alignment_section(figures)


def _whole_video_sections(
    outputs: Outputs, run: Run, videos: Sequence[str], first_captions: Sequence[str]
) -> list[Section]:
    """Returns the paragraphs that find their video last, where the run scores whole videos.

    Test sets of more than `MOST_SAVED` captions or clips are left out.

    Args:
        videos: ids in the order of the metric's vectors.
        first_captions: of each video.
    """
    sections = []
    for name in run.config.metric:
        metric = METRICS.get(name, "metric")()
        if not isinstance(metric, WholeVideoMetric):
            continue
        text_ND, video_MD, lengths = metric.vectors(outputs)
        ways = [way for way in metric.ways if way.prefix in _PUBLISHED]
        if max(len(text_ND), len(video_MD)) > MOST_SAVED:
            continue
        scores_NM = text_ND @ video_MD.T
        scores = [way.score(scores_NM, lengths) for way in ways]
        ranks = np.stack([ranks_from_scores(scores_nn) for scores_nn in scores])
        firsts = np.stack([scores_nn.argmax(axis=1) for scores_nn in scores])
        worst = np.lexsort(-ranks[::-1])[:NUM_VIDEOS]
        paragraphs = []
        for place in worst[ranks[:, worst].any(axis=0)]:
            preferred = [videos[first] for first in firsts[:, place]]
            paragraph = {
                "video": videos[place],
                "words": first_captions[place],
                "num_captions": lengths.captions[place],
                "places": list(zip(ranks[:, place] + 1, preferred, strict=True)),
            }
            paragraphs.append(paragraph)
        titles = [f"rank by {way.title}" for way in ways]
        data = {"ways": titles, "num_videos": len(videos), "paragraphs": paragraphs}
        sections.append(Section("Whole videos mistaken", "whole_videos.html", data))
    return sections


@pictures.register
def choice_sections(outputs: QAOutputs, run: Run) -> list[Section]:
    """Returns the wrong answers by how far the chosen answer is above the right one."""
    rows = np.arange(len(outputs.answers))
    right, chosen = outputs.answers, outputs.predictions
    margins = outputs.scores[rows, chosen] - outputs.scores[rows, right]
    questions = []
    for row in np.argsort(-margins, kind="stable")[:NUM_QUESTIONS]:
        if chosen[row] != right[row]:
            video, (_, answers) = run.item(int(row))
            question = {
                "video": video,
                "frame": run.frames.uri(ClipId(outputs.video_ids[row])),
                "answers": list(zip(answers, outputs.scores[row], strict=True)),
                "chosen": chosen[row],
                "right": right[row],
                "margin": margins[row],
            }
            questions.append(question)
    num_wrong = int((chosen != right).sum())
    data = {"questions": questions, "num_questions": len(rows), "num_wrong": num_wrong}
    return [Section("Worst failures", "choices.html", data)]
