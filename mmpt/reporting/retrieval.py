"""Retrieval in pictures: queries with their hits, the worst failures, whole videos mistaken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmpt.evaluators import ClipId, RetrievalOutputs, full_video
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.reporting.alignments import (
    MOST_SENTENCES,
    NUM_FIGURES,
    Figure,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.figures import COLOURS, GREY, Line, line_chart
from mmpt.reporting.frames import KeyFrames
from mmpt.reporting.pictures import Section, pictures
from mmpt.reporting.run import Run
from mmpt.reporting.whole_videos import whole_video_sections

MOST_QUERIES = 10_000
"""Queries that are ranked again for the pictures; of a larger test set the first ones."""
NUM_EXAMPLES = 6
NUM_FAILURES = 10
NUM_HITS = 5
FEWEST_SENTENCES = 3
"""Timed captions of a video that make an alignment worth showing."""
NEAR = 10
"""Ranks below this count as near misses."""


class Ranked(NamedTuple):
    """Queries with their best candidates."""

    ranks: np.ndarray
    """int64 [M], of the right clip, 0 is best."""
    hits: np.ndarray
    """int64 [M, NUM_HITS], best first."""
    scores: np.ndarray
    """float32 [M, NUM_HITS + 1], of the hits, and of the right clip."""


@pictures.register
def retrieval_sections(outputs: RetrievalOutputs, run: Run) -> list[Section]:
    """Returns the gallery, the worst failures, whole videos where these are scored, alignments."""
    captions = [text if isinstance(text, str) else str(text) for _, text in run.test_items()]
    ranked = rank_queries(outputs)
    gallery = Gallery(captions, outputs.clips, ranked, run.frames)
    spaced = np.unique(np.linspace(0, len(ranked.ranks) - 1, NUM_EXAMPLES).astype(int))
    worst = np.argsort(-ranked.ranks, kind="stable")[:NUM_FAILURES]
    worst = worst[ranked.ranks[worst] > 0]
    numbers = {"num_queries": len(ranked.ranks), "num_clips": len(outputs.clips), "near": NEAR}
    charts = _recall_chart(ranked.ranks, len(outputs.clips))
    examples = {"charts": charts, "queries": gallery.queries(spaced), **numbers}
    failures = {"queries": gallery.queries(worst, 3), **numbers}
    sections = [
        Section("Retrieval gallery", "gallery.html", examples),
        Section("Worst failures", "retrieval_failures.html", failures),
    ]
    grouping = full_video.group_by_video(
        [clip.video_id for clip in outputs.clips], _starts_s(outputs.clips)
    )
    firsts = [
        captions[place] for place in grouping.order[np.cumsum(grouping.lengths) - grouping.lengths]
    ]
    sections += whole_video_sections(outputs, run, grouping.videos, firsts)
    return sections + alignment_section(_figures(outputs, run, captions))


def _starts_s(clips: Sequence[ClipId]) -> list[float]:
    return [0.0 if clip.start_s is None else clip.start_s for clip in clips]


def _figures(outputs: RetrievalOutputs, run: Run, captions: Sequence[str]) -> list[Figure | None]:
    """Aligns the captions of a few videos that have several with times, up to the last one."""
    places: dict[str, list[int]] = {}
    for place, clip in enumerate(outputs.clips):
        if clip.start_s is not None and clip.end_s is not None:
            places.setdefault(clip.video_id, []).append(place)
    fitting = [(video, found) for video, found in places.items() if len(found) >= FEWEST_SENTENCES]
    figures = []
    for video, found in spread(fitting, NUM_FIGURES):
        rows = sorted(found, key=lambda place: outputs.clips[place].start_s or 0)[:MOST_SENTENCES]
        truth = [(outputs.clips[row].start_s or 0, outputs.clips[row].end_s or 0) for row in rows]
        key = (run.item(rows[0])[0][0], 0, int(max(end for _, end in truth)))
        words = [captions[row] for row in rows]
        figures.append(align_video(run, video, key, words, outputs.pooled_text[rows], truth))
    return figures


def rank_queries(outputs: RetrievalOutputs) -> Ranked:
    """Rank the clips for (the first of) the captions, some rows of scores at a time."""
    text_ND, video_ND = outputs.pooled_text[:MOST_QUERIES], outputs.pooled_video
    num_hits, step = min(NUM_HITS, len(video_ND)), max(1, (1 << 23) // len(video_ND))
    ranks, hits, scores = [], [], []
    for first in range(0, len(text_ND), step):
        scores_RN = text_ND[first : first + step] @ video_ND.T
        row = np.arange(len(scores_RN))
        best = np.argpartition(-scores_RN, num_hits - 1, axis=1)[:, :num_hits]
        order = np.argsort(-np.take_along_axis(scores_RN, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        ranks.append(ranks_from_scores(scores_RN, first))
        hits.append(best)
        own_R1 = scores_RN[row, first + row][:, None]
        scores.append(np.concatenate([np.take_along_axis(scores_RN, best, axis=1), own_R1], axis=1))
    return Ranked(np.concatenate(ranks), np.concatenate(hits), np.concatenate(scores))


class Gallery:
    """Queries with their hits as cards."""

    def __init__(
        self, captions: Sequence[str], clips: Sequence[ClipId], ranked: Ranked, frames: KeyFrames
    ):
        self.captions = captions
        self.clips = clips
        self.ranked = ranked
        self.frames = frames

    def queries(self, places: np.ndarray, num_hits: int = NUM_HITS) -> list[dict[str, Any]]:
        """Returns some queries, each with its first hits and the right clip."""
        return [self._query(place, num_hits) for place in places.tolist()]

    def _query(self, query: int, num_hits: int) -> dict[str, Any]:
        rank = int(self.ranked.ranks[query])
        hits = self.ranked.hits[query, :num_hits].tolist()
        scores = self.ranked.scores[query]
        cards = [self._card(clip, place, scores[place], query) for place, clip in enumerate(hits)]
        if query not in hits:
            cards.append(self._card(query, rank, scores[-1], query))
        return {"words": self.captions[query], "rank": rank + 1, "cards": cards}

    def _card(self, clip: int, rank: int, score: float, query: int) -> dict[str, Any]:
        same = clip != query and self.captions[clip] == self.captions[query]
        where = describe(self.clips[clip]) + (" (same words)" if same else "")
        return {
            "rank": rank + 1,
            "score": score,
            "words": self.captions[clip],
            "where": where,
            "frame": self.frames.uri(self.clips[clip]),
            "right": clip == query,
        }


def describe(clip: ClipId) -> str:
    """Returns a clip's video and seconds."""
    if clip.start_s is None or clip.end_s is None:
        return clip.video_id
    return f"{clip.video_id}, {clip.start_s:g} to {clip.end_s:g} s"


def _recall_chart(ranks: np.ndarray, num_candidates: int) -> dict[str, str]:
    """Returns recall at every k, next to chance, by its title; none for one candidate."""
    ks = np.unique(np.geomspace(1, num_candidates, 120).round().astype(int))
    if len(ks) == 1:
        return {}
    percent = np.searchsorted(np.sort(ranks), ks, side="left") / len(ranks) * 100
    lines = [
        Line("text to video", ks, percent, COLOURS[0]),
        Line("chance", ks, ks / num_candidates * 100, GREY),
    ]
    title = "recall at k, percent"
    return {title: line_chart(title, lines, "k", (460, 240), log_x=True)}
