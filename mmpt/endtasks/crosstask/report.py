"""The report's section about step localisation: when steps are done, and the predicted seconds."""

from collections.abc import Sequence

import numpy as np

from mmpt.endtasks.crosstask.evaluation import (
    LocalisationOutputs,
    PlacedVideo,
    num_hits,
    num_steps_done,
)
from mmpt.reporting.figures import INK, Bar, bars
from mmpt.reporting.run import EvaluationRun, Section
from mmpt.reporting.timelines import NUM_VIDEOS, STEP_COLOURS, runs_of


def localisation_sections(
    outputs: LocalisationOutputs, run: EvaluationRun
) -> list[Section]:
    """Returns the section about the videos with the lowest recall."""
    num_done = np.array([num_steps_done(video) for video in outputs.videos])
    num_found = np.array([num_hits(video) for video in outputs.videos])
    recall = num_found / np.maximum(num_done, 1)
    worst = np.argsort(recall, kind="stable")[:NUM_VIDEOS]
    timelines = []
    for place in worst.tolist():
        if recall[place] == 1:
            break
        video = outputs.videos[place]
        _, steps = run.item(place)
        found = f"{num_found[place]} of {num_done[place]} steps found"
        title = f"{video.video_id} (task {video.task}): {found}"
        figure = bars(title, _rows(video, steps.texts), len(video.done))
        timelines.append({"title": title, "figure": figure, "legend": ()})
    return [
        Section("Worst failures", "crosstask/placements.html", {"timelines": timelines})
    ]


def _rows(video: PlacedVideo, texts: Sequence[str]) -> list[tuple[str, list[Bar]]]:
    """Returns a row for each step: its words, when it is done, and the second predicted for it."""
    rows = []
    for step, text in enumerate(texts):
        colour = STEP_COLOURS[step % len(STEP_COLOURS)]
        row_bars = []
        for start, end, done in runs_of(video.done[:, step]):
            if done:
                row_bars.append(Bar(start, end, colour, text))
        for second in np.flatnonzero(video.placed[:, step]).tolist():
            row_bars.append(Bar(second, second + 1, INK, f"predicted: {text}"))
        rows.append((text, row_bars))
    return rows
