"""Retrieval in pictures: queries with what was found for them, the worst failures, and whole videos mistaken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmpt.evaluators import ClipId, RetrievalOutputs, full_video
from mmpt.evaluators.functional import ranks_from_scores
from mmpt.reporting.alignments import MOST_SENTENCES, NUM_FIGURES, Figure, align_video, alignment_section, spread
from mmpt.reporting.charts import COLOURS, GREY, Line, line_chart
from mmpt.reporting.frames import KeyFrames
from mmpt.reporting.markup import Section, escape, shorten, tag
from mmpt.reporting.pictures import pictures
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
    """Return the gallery, the worst failures, whole videos where they are scored, and alignments."""
    captions = [text if isinstance(text, str) else str(text) for _, text in run.test_items()]
    ranked = rank_queries(outputs)
    gallery = Gallery(captions, outputs.clips, ranked, run.frames)
    examples = np.unique(np.linspace(0, len(ranked.ranks) - 1, NUM_EXAMPLES).astype(int))
    worst = np.argsort(-ranked.ranks, kind="stable")[:NUM_FAILURES]
    worst = worst[ranked.ranks[worst] > 0]
    looked = f"{len(ranked.ranks):,} queries, {len(outputs.clips):,} clips"
    sections = [
        Section(
            "Retrieval gallery",
            _recall_chart(ranked.ranks, len(outputs.clips)) + gallery.show(examples),
            f"Captions looking for their clip ({looked}), taken at even distances through the test set, with the best "
            "clips and the right one (green) if it is not among them.",
        ),
        Section(
            "Worst failures",
            gallery.show(worst, 3) or tag("p", "Every query found its clip."),
            "The queries whose right clip comes last, with what was preferred to it.",
        ),
    ]
    grouping = full_video.group_by_video([clip.video_id for clip in outputs.clips], _starts_s(outputs.clips))
    firsts = [captions[place] for place in grouping.order[np.cumsum(grouping.lengths) - grouping.lengths]]
    sections += whole_video_sections(outputs, run, grouping.videos, firsts)
    return sections + alignment_section(_figures(outputs, run, captions))


def _starts_s(clips: Sequence[ClipId]) -> list[float]:
    return [0.0 if clip.start_s is None else clip.start_s for clip in clips]


def _figures(outputs: RetrievalOutputs, run: Run, captions: Sequence[str]) -> list[Figure | None]:
    """Align the captions of a few videos that have several with times, to the end of the last one."""
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
    """Shows queries with their hits as cards."""

    def __init__(self, captions: Sequence[str], clips: Sequence[ClipId], ranked: Ranked, frames: KeyFrames):
        self.captions = captions
        self.clips = clips
        self.ranked = ranked
        self.frames = frames

    def show(self, queries: np.ndarray, num_hits: int = NUM_HITS) -> str:
        """Return the HTML of some queries, each with its first hits and the right clip."""
        return "".join(self._query(int(query), num_hits) for query in queries)

    def _query(self, query: int, num_hits: int) -> str:
        rank = int(self.ranked.ranks[query])
        hits = self.ranked.hits[query, :num_hits].tolist()
        scores = self.ranked.scores[query]
        cards = [self._card(clip, place, scores[place], query) for place, clip in enumerate(hits)]
        if query not in hits:
            cards.append(self._card(query, rank, scores[-1], query))
        class_ = "badge good" if rank == 0 else "badge near" if rank < NEAR else "badge"
        place = tag("span", f"right clip at rank {rank + 1:,}", class_=class_)
        head = tag(
            "p", f"{tag('span', '“' + escape(shorten(self.captions[query], 300)) + '”', class_='words')} {place}"
        )
        return tag("article", head + tag("div", "".join(cards), class_="cards"), class_="query")

    def _card(self, clip: int, rank: int, score: float, query: int) -> str:
        picture = self.frames.uri(self.clips[clip])
        image = f'<img src="{picture}" alt="key frame">' if picture else ""
        same = clip != query and self.captions[clip] == self.captions[query]
        where = escape(describe(self.clips[clip])) + (" (same words)" if same else "")
        words = escape(shorten(self.captions[clip], 140))
        body = f"{image}<span class='rank'>{rank + 1:,}. score {score:.2f}</span><br><b>{words}</b><br>"
        return tag(
            "figure", body + tag("span", where, class_="where"), class_="card right" if clip == query else "card"
        )


def describe(clip: ClipId) -> str:
    """Return a clip's video and seconds."""
    if clip.start_s is None or clip.end_s is None:
        return clip.video_id
    return f"{clip.video_id}, {clip.start_s:g} to {clip.end_s:g} s"


def _recall_chart(ranks: np.ndarray, num_candidates: int) -> str:
    """Return recall at every k, beside chance."""
    ks = np.unique(np.geomspace(1, num_candidates, 120).round().astype(int))
    share = np.searchsorted(np.sort(ranks), ks, side="left") / len(ranks) * 100
    lines = [
        Line(name="text to video", xs=ks.tolist(), ys=share.tolist(), colour=COLOURS[0]),
        Line(name="chance", xs=ks.tolist(), ys=(ks / num_candidates * 100).tolist(), colour=GREY),
    ]
    return line_chart("recall at k, percent", lines, "k", size=(460, 240), log_x=True) if len(ks) > 1 else ""
