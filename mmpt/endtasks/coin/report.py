"""The report's section about step segmentation: true and predicted steps along videos."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpt.endtasks.coin.data import COINActionSegmentationMetaProcessor, step_labels
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.reporting.figures import Bar, bars
from mmpt.reporting.run import EvaluationRun, Section
from mmpt.reporting.timelines import NUM_VIDEOS, STEP_COLOURS, runs_of

NO_STEP, OTHER_STEP = "#dfe4ea", "#a9b4c0"


def segmentation_sections(
    outputs: SegmentationOutputs, run: EvaluationRun
) -> list[Section]:
    """Returns the section about the videos with the lowest accuracy, and the best video."""
    ends = np.cumsum(outputs.video_lengths)[:-1]
    truth = np.split(outputs.targets, ends)
    found = np.split(outputs.predictions, ends)
    credit = np.split(outputs.credits, ends)
    accuracy = np.array([credit_L.mean() for credit_L in credit])
    labels = {}
    # The words of the steps are in COIN's file. Other readers may have none.
    meta = run.dataset.meta
    if isinstance(meta, COINActionSegmentationMetaProcessor):
        labels = dict(enumerate(step_labels(meta.list_path()), start=1))
    order = np.argsort(accuracy, kind="stable")
    worst = order[:NUM_VIDEOS]
    best = order[NUM_VIDEOS:][-1:]  # none if all videos are among the worst
    timelines = []
    for video in [*worst, *best]:
        percent = 100 * accuracy[video]
        title = f"{outputs.video_ids[video]}: {percent:.1f} % of its seconds are right"
        timeline = _segments(title, truth[video], found[video], labels)
        timelines.append(timeline)
    return [Section("Worst failures", "coin/segments.html", {"timelines": timelines})]


def _segments(
    title: str, truth_L: np.ndarray, found_L: np.ndarray, labels: Mapping[int, str]
) -> dict[str, Any]:
    """Returns the variables of a timeline, with the true steps above the predicted ones.

    True steps get colours first, then predicted steps, the most frequent first. Steps for which no
    colour is left are grey.
    """
    predicted = Counter(found_L.tolist())
    often = [step for step, _ in predicted.most_common()]
    steps = dict.fromkeys([*truth_L.tolist(), *often])  # an ordered set
    steps.pop(0, None)
    colours = {0: NO_STEP}
    names = {0: "no step"}
    legend = []
    for number, step in enumerate(steps):
        colours[step] = OTHER_STEP
        names[step] = labels.get(step, f"step {step}")
        if number < len(STEP_COLOURS):
            colours[step] = STEP_COLOURS[number]
            legend.append((colours[step], names[step]))
    num_others = len(steps) - len(legend)
    if num_others:
        legend.append((OTHER_STEP, f"{num_others} other steps"))
    rows = []
    for name, values_L in (("truth", truth_L), ("predicted", found_L)):
        row_bars = []
        for start, end, step in runs_of(values_L):
            row_bars.append(Bar(start, end, colours[step], names[step]))
        rows.append((name, row_bars))
    figure = bars(title, rows, len(truth_L))
    return {"title": title, "figure": figure, "legend": legend}
