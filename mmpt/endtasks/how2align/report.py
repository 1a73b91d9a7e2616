"""The report's sections about HTM-Align: heat maps of some videos, and misplaced sentences."""

import numpy as np

from mmpt.endtasks.how2align.evaluation import How2AlignOutputs
from mmpt.reporting.alignments import (
    MOST_SENTENCES,
    NUM_FIGURES,
    align_video,
    alignment_section,
    spread,
)
from mmpt.reporting.run import Run, Section

NUM_FAILURES = 10


def align_sections(outputs: How2AlignOutputs, run: Run) -> list[Section]:
    """Returns heat maps of some videos, and the sentences placed farthest from their time."""
    texts = {}
    figures = []
    items = run.test_items()
    for video, sentences in items:
        texts[video] = [sentence.text for sentence in sentences]
    for video, sentences in spread(items, NUM_FIGURES):
        first = sentences[:MOST_SENTENCES]
        truth = [(s.start_s, s.end_s) if s.aligned else None for s in first]
        end_s = int(max(sentence.end_s for sentence in first)) + 1
        words = texts[video][:MOST_SENTENCES]
        figures.append(align_video(run, video, video, words, truth, end_s))
    misses = []
    for video in outputs.videos:
        cosines = np.where(video.covered, video.similarity, -np.inf)
        for row in np.flatnonzero(video.aligned & video.covered.any(axis=1)):
            at, (start, end) = int(cosines[row].argmax()), video.spans_s[row]
            miss = {
                "video": video.video_id,
                "words": texts[video.video_id][row],
                "start_s": start,
                "end_s": end,
                "found_s": at,
                "off_s": max(start - at, at - end, 0.0),
                "cosine": cosines[row, at],
            }
            misses.append(miss)
    misses.sort(key=lambda miss: -miss["off_s"])
    worst = [miss for miss in misses[:NUM_FAILURES] if miss["off_s"]]
    failures = Section("Worst failures", "how2align/misses.html", {"misses": worst})
    return [*alignment_section(figures), failures]
