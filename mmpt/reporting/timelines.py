"""Predictions along a video's time as coloured bars: segments, placed steps and moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mmpt.endtasks.coin.data import step_labels
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.endtasks.crosstask.evaluation import LocalisationOutputs
from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, PIECE_S, agreement
from mmpt.evaluators import ClipId
from mmpt.reporting.figures import COLOURS, INK, Bar, bars
from mmpt.reporting.pictures import Section, pictures
from mmpt.reporting.run import Run

NUM_VIDEOS = 6
NUM_MOMENTS = 10
NO_STEP, OTHER_STEP = "#dfe4ea", "#a9b4c0"
_STEP_COLOURS = (
    *(
        "#4e79a7",
        "#f28e2b",
        "#59a14f",
        "#e15759",
        "#b07aa1",
        "#edc948",
        "#76b7b2",
        "#ff9da7",
        "#9c755f",
        "#1f3a5f",
    ),
    *("#8cd17d", "#d37295", "#499894", "#a0601a", "#79706e", "#6b4c9a"),
)


class Timeline(NamedTuple):
    """Bars along a video's time."""

    title: str
    figure: str
    """SVG."""
    legend: Sequence[tuple[str, str]] = ()
    """Colours, and what each stands for."""


@pictures.register
def segmentation_sections(outputs: SegmentationOutputs, run: Run) -> list[Section]:
    """Returns the videos with the worst accuracy of seconds and one of the best."""
    ends = np.cumsum(outputs.video_lengths)
    parts = [
        slice(end - length, end) for end, length in zip(ends, outputs.video_lengths, strict=True)
    ]
    accuracy = np.array([outputs.credits[part].mean() for part in parts])
    order = np.argsort(accuracy, kind="stable")
    labels = _step_labels(run)
    timelines = []
    for video in [*order[:NUM_VIDEOS], *order[NUM_VIDEOS:][-1:]]:
        title = (
            f"{outputs.video_ids[video]}: {100 * accuracy[video]:.1f} % of its seconds are right"
        )
        truth, found = outputs.targets[parts[video]], outputs.predictions[parts[video]]
        timelines.append(_segments(title, truth, found, labels))
    return [Section("Worst failures", "segments.html", {"timelines": timelines})]


def _step_labels(run: Run) -> Mapping[int, str]:
    """Returns the words of steps, as far as the annotation file is one that has them."""
    if "COIN" not in (run.config.dataset.meta_processor or ""):
        return {}
    return dict(enumerate(step_labels(run.dataset.meta.list_path()), start=1))


def _segments(
    title: str, truth_L: np.ndarray, found_L: np.ndarray, labels: Mapping[int, str]
) -> Timeline:
    """Returns truth above prediction. Steps without a colour of their own share one."""
    often = [step for step, _ in Counter(found_L.tolist()).most_common()]
    steps = [int(step) for step in dict.fromkeys([*truth_L.tolist(), *often]) if step]
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
    return Timeline(title, bars(title, rows, len(truth_L)), legend)


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
    for place in worst[recall[worst] < 1]:
        video, (_, steps) = outputs.videos[place], run.item(int(place))
        title = (
            f"{video.video_id} (task {video.task}): {found[place]} of {num_done[place]} steps found"
        )
        rows = _placed(video.done, video.placed, steps.texts)
        timelines.append(Timeline(title, bars(title, rows, len(video.done))))
    return [Section("Worst failures", "placements.html", {"timelines": timelines})]


def _placed(
    done_LK: np.ndarray, placed_LK: np.ndarray, texts: Sequence[str]
) -> list[tuple[str, list[Bar]]]:
    """Returns a row per step: when it is done, and the seconds where it was put."""
    rows = []
    for step, text in enumerate(texts):
        colour = _STEP_COLOURS[step % len(_STEP_COLOURS)]
        stretches = [
            Bar(s, e, colour, text) for s, e, is_done in runs_of(done_LK[:, step]) if is_done
        ]
        seconds = np.flatnonzero(placed_LK[:, step]).tolist()
        rows.append((text, [*stretches, *(Bar(s, s + 1, INK, f"put: {text}") for s in seconds)]))
    return rows


@pictures.register
def moment_sections(outputs: MomentOutputs, run: Run) -> list[Section]:
    """Returns the descriptions whose first moment overlaps least with what people chose."""
    ranking_NM = outputs.ranking("released")
    found = agreement(ranking_NM, outputs.times)
    worst = np.lexsort((-found.ranks, found.ious))[:NUM_MOMENTS]
    queries = []
    for place in worst[found.ious[worst] < 1].tolist():
        people = [tuple(time) for time in outputs.times[place].tolist() if time[0] >= 0]
        rows = [("found", [_moment(MOMENTS[ranking_NM[place, 0]], COLOURS[1])])]
        rows += [(f"person {n}", [_moment(time, COLOURS[0])]) for n, time in enumerate(people, 1)]
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


def _moment(pieces: tuple[int, ...], colour: str) -> Bar:
    return Bar(PIECE_S * pieces[0], PIECE_S * (pieces[-1] + 1), colour, "moment")
