"""Predictions along a video's time as coloured bars: segments, placed steps and moments."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from mmpt.endtasks.coin.data import step_labels
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.endtasks.crosstask.evaluation import LocalisationOutputs
from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, PIECE_S, agreement
from mmpt.evaluators import ClipId
from mmpt.reporting.figures import COLOURS, INK, Bar, bars
from mmpt.reporting.run import Run, Section, pictures

NUM_VIDEOS = 6
NUM_MOMENTS = 10
NO_STEP, OTHER_STEP = "#dfe4ea", "#a9b4c0"
_STEP_COLOURS = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#edc948", "#76b7b2", "#ff9da7"),
    *("#9c755f", "#1f3a5f", "#8cd17d", "#d37295", "#499894", "#a0601a", "#79706e", "#6b4c9a"),
)


@pictures.register
def segmentation_sections(outputs: SegmentationOutputs, run: Run) -> list[Section]:
    """Returns the videos with the worst accuracy of seconds and one of the best."""
    ends = np.cumsum(outputs.video_lengths)[:-1]
    accuracy = np.array([credits.mean() for credits in np.split(outputs.credits, ends)])
    truth, found = np.split(outputs.targets, ends), np.split(outputs.predictions, ends)
    labels = {}
    # Only COIN's annotation file has the words of the steps.
    if "COIN" in (run.config.dataset.meta_processor or ""):
        labels = dict(enumerate(step_labels(run.dataset.meta.list_path()), start=1))
    order = np.argsort(accuracy, kind="stable")
    timelines = []
    for video in [*order[:NUM_VIDEOS], *order[NUM_VIDEOS:][-1:]]:
        right = f"{100 * accuracy[video]:.1f} % of its seconds are right"
        title = f"{outputs.video_ids[video]}: {right}"
        timelines.append(_segments(title, truth[video], found[video], labels))
    return [Section("Worst failures", "segments.html", {"timelines": timelines})]


def _segments(
    title: str, truth_L: np.ndarray, found_L: np.ndarray, labels: Mapping[int, str]
) -> dict[str, Any]:
    """Returns truth above prediction. Steps without a colour of their own share one."""
    often = [step for step, _ in Counter(found_L.tolist()).most_common()]
    steps = [step for step in dict.fromkeys([*truth_L.tolist(), *often]) if step]
    colours = dict.fromkeys(steps, OTHER_STEP) | dict(zip(steps, _STEP_COLOURS, strict=False))
    names = {step: labels.get(step, f"step {step}") for step in steps}
    rows = []
    for name, values_L in (("truth", truth_L), ("predicted", found_L)):
        row_bars = [
            Bar(start, end, colours.get(step, NO_STEP), names.get(step, "no step"))
            for start, end, step in runs_of(values_L)
        ]
        rows.append((name, row_bars))
    legend = [(colours[step], names[step]) for step in steps[: len(_STEP_COLOURS)]]
    if len(steps) > len(legend):
        legend.append((OTHER_STEP, f"{len(steps) - len(legend)} other steps"))
    return {"title": title, "figure": bars(title, rows, len(truth_L)), "legend": legend}


def runs_of(values_L: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (start, end, value) of every stretch of equal values, end exclusive."""
    edges = [0, *(np.flatnonzero(np.diff(values_L)) + 1).tolist(), len(values_L)]
    return [(start, end, int(values_L[start])) for start, end in pairwise(edges)]


@pictures.register
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
            colour = _STEP_COLOURS[step % len(_STEP_COLOURS)]
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
    return [Section("Worst failures", "placements.html", {"timelines": timelines})]


@pictures.register
def moment_sections(outputs: MomentOutputs, run: Run) -> list[Section]:
    """Returns the descriptions whose first moment overlaps least with what people chose."""
    ranking_NM = outputs.ranking("released")
    found = agreement(ranking_NM, outputs.times)
    worst = np.lexsort((-found.ranks, found.ious))[:NUM_MOMENTS]
    queries = []
    for place in worst[found.ious[worst] < 1].tolist():
        times = [time for time in outputs.times[place].tolist() if time[0] >= 0]
        moments = [("found", MOMENTS[ranking_NM[place, 0]], COLOURS[1])]
        moments += [(f"person {n}", time, COLOURS[0]) for n, time in enumerate(times, 1)]
        rows = [
            (name, [Bar(PIECE_S * pieces[0], PIECE_S * (pieces[-1] + 1), colour, "moment")])
            for name, pieces, colour in moments
        ]
        video = outputs.video_ids[place]
        query = {
            "words": run.item(place)[1],
            "rank": found.ranks[place],
            "overlap": abs(found.ious[place]),
            "video": video,
            "num_seconds": outputs.num_seconds[place],
            "frame": run.frames.uri(ClipId(video)),
            "figure": bars("moments found and chosen", rows, NUM_SECONDS),
        }
        queries.append(query)
    return [Section("Worst failures", "moments.html", {"queries": queries})]
