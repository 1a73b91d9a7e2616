"""The report's sections about HTM-Align: heat maps of some videos, and misplaced sentences."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmpt.endtasks.how2align.alignment_scores import true_seconds
from mmpt.endtasks.how2align.data import Sentence
from mmpt.endtasks.how2align.evaluation import AlignedVideo, How2AlignOutputs
from mmpt.reporting.alignments import (
    MAX_SENTENCES,
    NUM_HEAT_MAPS,
    HeatMap,
    Span,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.run import EvaluationRun, Section

NUM_FAILURES = 10


def align_sections(outputs: How2AlignOutputs, run: EvaluationRun) -> list[Section]:
    """Returns heat maps of some videos, and the sentences placed farthest from their time."""
    items = run.test_items()
    maps = []
    for video_id, sentences in spread(items, NUM_HEAT_MAPS):
        maps.append(_heat_map(run, video_id, sentences[:MAX_SENTENCES]))
    sentences_of = dict(items)
    misses = []
    for video in outputs.videos:
        misses += _misses(video, sentences_of[video.video_id])
    misses.sort(key=lambda miss: -miss["off_s"])
    worst = misses[:NUM_FAILURES]
    failures = Section("Worst failures", "how2align/misses.html", {"misses": worst})
    return [*alignment_section(maps), failures]


def _heat_map(
    run: EvaluationRun, video_id: str, sentences: Sequence[Sentence]
) -> HeatMap | None:
    """Returns the heat maps of a video's first sentences, up to the end of the last of them."""
    words = [sentence.text for sentence in sentences]
    truth: list[Span | None] = []
    for sentence in sentences:
        truth.append((sentence.start_s, sentence.end_s) if sentence.aligned else None)
    last_s = max(sentence.end_s for sentence in sentences)
    return align_video(run, video_id, video_id, words, truth, end_s=int(last_s) + 1)


def _misses(video: AlignedVideo, sentences: Sequence[Sentence]) -> list[dict[str, Any]]:
    """Returns the variables of the template for each sentence placed outside its time."""
    misses = []
    cosines = np.where(video.covered, video.similarity, -np.inf)
    placed = video.aligned & video.covered.any(axis=1)
    is_hit_nL = true_seconds(video.spans_s, cosines.shape[1])
    for row in np.flatnonzero(placed).tolist():
        start_s, end_s = video.spans_s[row]
        found_s = int(cosines[row].argmax())
        if is_hit_nL[row, found_s]:
            continue
        miss = {
            "video": video.video_id,
            "words": sentences[row].text,
            "start_s": start_s,
            "end_s": end_s,
            "found_s": found_s,
            "off_s": max(start_s - found_s, found_s - end_s),
            "cosine": cosines[row, found_s],
        }
        misses.append(miss)
    return misses
