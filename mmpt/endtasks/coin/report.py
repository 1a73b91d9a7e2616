"""The report's section about step segmentation: true and predicted steps along videos."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmpt.endtasks.coin.data import COINActionSegmentationMetaProcessor, step_labels
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.reporting.figures import Bar, bars
from mmpt.reporting.run import Run, Section
from mmpt.reporting.timelines import NUM_VIDEOS, STEP_COLOURS, runs_of

NO_STEP, OTHER_STEP = "#dfe4ea", "#a9b4c0"


def segmentation_sections(outputs: SegmentationOutputs, run: Run) -> list[Section]:
    """Returns the videos with the worst accuracy of seconds and one of the best."""
    ends = np.cumsum(outputs.video_lengths)[:-1]
    accuracy = np.array([credits.mean() for credits in np.split(outputs.credits, ends)])
    truth, found = np.split(outputs.targets, ends), np.split(outputs.predictions, ends)
    labels = {}
    # The words of the steps are in COIN's file. Other readers may have none.
    if isinstance(run.dataset.meta, COINActionSegmentationMetaProcessor):
        labels = dict(enumerate(step_labels(run.dataset.meta.list_path()), start=1))
    order = np.argsort(accuracy, kind="stable")
    timelines = []
    for video in [*order[:NUM_VIDEOS], *order[NUM_VIDEOS:][-1:]]:
        right = f"{100 * accuracy[video]:.1f} % of its seconds are right"
        title = f"{outputs.video_ids[video]}: {right}"
        timelines.append(_segments(title, truth[video], found[video], labels))
    return [Section("Worst failures", "coin/segments.html", {"timelines": timelines})]


def _segments(
    title: str, truth_L: np.ndarray, found_L: np.ndarray, labels: Mapping[int, str]
) -> dict[str, Any]:
    """Returns the true steps above the predicted ones.

    The steps of the truth get colours first, then the predicted ones, the most frequent first.
    Steps for which no colour is left share one.
    """
    often = [step for step, _ in Counter(found_L.tolist()).most_common()]
    steps = [step for step in dict.fromkeys([*truth_L.tolist(), *often]) if step]
    colours = dict.fromkeys(steps, OTHER_STEP) | dict(zip(steps, STEP_COLOURS, strict=False))
    names = {step: labels.get(step, f"step {step}") for step in steps}
    rows = []
    for name, values_L in (("truth", truth_L), ("predicted", found_L)):
        row_bars = [
            Bar(start, end, colours.get(step, NO_STEP), names.get(step, "no step"))
            for start, end, step in runs_of(values_L)
        ]
        rows.append((name, row_bars))
    legend = [(colours[step], names[step]) for step in steps[: len(STEP_COLOURS)]]
    if len(steps) > len(legend):
        legend.append((OTHER_STEP, f"{len(steps) - len(legend)} other steps"))
    return {"title": title, "figure": bars(title, rows, len(truth_L)), "legend": legend}
