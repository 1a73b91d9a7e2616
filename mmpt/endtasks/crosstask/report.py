"""The report's section about step localisation: where steps are done, and where they were put."""

import numpy as np

from mmpt.endtasks.crosstask.evaluation import LocalisationOutputs
from mmpt.reporting.figures import INK, Bar, bars
from mmpt.reporting.run import Run, Section
from mmpt.reporting.timelines import NUM_VIDEOS, STEP_COLOURS, runs_of


def localisation_sections(outputs: LocalisationOutputs, run: Run) -> list[Section]:
    """Returns the videos with the fewest steps found: where each is done, and where it was put."""
    found = np.array([(video.done * video.placed).sum() for video in outputs.videos])
    num_done = np.array([video.done.any(axis=0).sum() for video in outputs.videos])
    recall = found / np.maximum(num_done, 1)
    worst = np.argsort(recall, kind="stable")[:NUM_VIDEOS]
    timelines = []
    for place in worst[recall[worst] < 1].tolist():
        video, (_, steps) = outputs.videos[place], run.item(place)
        rows = []
        for step, text in enumerate(steps.texts):
            colour = STEP_COLOURS[step % len(STEP_COLOURS)]
            row_bars = [
                Bar(s, e, colour, text) for s, e, done in runs_of(video.done[:, step]) if done
            ]
            for second in np.flatnonzero(video.placed[:, step]).tolist():
                row_bars.append(Bar(second, second + 1, INK, f"put: {text}"))
            rows.append((text, row_bars))
        steps_found = f"{found[place]} of {num_done[place]} steps found"
        title = f"{video.video_id} (task {video.task}): {steps_found}"
        figure = bars(title, rows, len(video.done))
        timelines.append({"title": title, "figure": figure, "legend": ()})
    return [Section("Worst failures", "crosstask/placements.html", {"timelines": timelines})]
