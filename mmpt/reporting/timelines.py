"""Predictions along a video's time as coloured bars: segmented steps, steps put in place, and moments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mmpt.endtasks.coin.data import step_labels
from mmpt.endtasks.coin.evaluation import SegmentationOutputs
from mmpt.endtasks.crosstask.evaluation import LocalisationOutputs
from mmpt.endtasks.didemo.evaluation import MomentOutputs
from mmpt.endtasks.didemo.moments import MOMENTS, NUM_SECONDS, PIECE_S, agreement
from mmpt.evaluators import ClipId
from mmpt.reporting.charts import COLOURS, INK, Bar, bars
from mmpt.reporting.markup import Section, escape, shorten, tag
from mmpt.reporting.pictures import pictures
from mmpt.reporting.run import Run

NUM_VIDEOS = 6
NUM_MOMENTS = 10
NO_STEP, OTHER_STEP = "#dfe4ea", "#a9b4c0"
_STEP_COLOURS = (
    *("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#edc948", "#76b7b2", "#ff9da7", "#9c755f", "#1f3a5f"),
    *("#8cd17d", "#d37295", "#499894", "#a0601a", "#79706e", "#6b4c9a"),
)


@pictures.register
def segmentation_sections(outputs: SegmentationOutputs, run: Run) -> list[Section]:
    """Return the videos with the worst accuracy of seconds, truth above prediction, and one of the best."""
    ends = np.cumsum(outputs.video_lengths)
    parts = [slice(end - length, end) for end, length in zip(ends, outputs.video_lengths, strict=True)]
    accuracy = np.array([outputs.credits[part].mean() for part in parts])
    order = np.argsort(accuracy, kind="stable")
    labels = _step_labels(run)
    shown = [*order[:NUM_VIDEOS], *order[NUM_VIDEOS:][-1:]]
    blocks = [
        tag("h3", escape(f"{outputs.video_ids[video]}: {100 * accuracy[video]:.1f} % of its seconds are right"))
        + _segments(outputs.targets[parts[video]], outputs.predictions[parts[video]], labels)
        for video in shown
    ]
    text = "What is done in every second, in truth and as predicted: the worst videos, and the best one at the end."
    return [Section("Worst failures", "".join(blocks), text)]


def _step_labels(run: Run) -> Mapping[int, str]:
    """Return the words of steps, as far as the annotation file is one that has them."""
    if "COIN" not in (run.config.dataset.meta_processor or ""):
        return {}
    return dict(enumerate(step_labels(run.dataset.meta.list_path()), start=1))


def _segments(truth_L: np.ndarray, found_L: np.ndarray, labels: Mapping[int, str]) -> str:
    often = [step for step, _ in Counter(found_L.tolist()).most_common()]
    steps = [int(step) for step in dict.fromkeys([*truth_L.tolist(), *often]) if step]
    colours = dict.fromkeys(steps, OTHER_STEP) | dict(zip(steps, _STEP_COLOURS, strict=False))
    names = {step: labels.get(step, f"step {step}") for step in steps}
    rows = [
        (name, [Bar(s, e, colours.get(step, NO_STEP), names.get(step, "no step")) for s, e, step in runs_of(values_L)])
        for name, values_L in (("truth", truth_L), ("predicted", found_L))
    ]
    entries = [(colours[step], shorten(names[step], 50)) for step in steps[: len(_STEP_COLOURS)]]
    if len(steps) > len(entries):
        entries.append((OTHER_STEP, f"{len(steps) - len(entries)} other steps"))
    legend = "".join(
        tag("span", f'<i style="background:{colour}"></i>{escape(name)}', dir="auto") for colour, name in entries
    )
    return bars("steps in truth and as predicted", rows, len(truth_L)) + tag("div", legend, class_="legend")


def runs_of(values_L: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (start, end, value) of every stretch of equal values, end exclusive."""
    edges = [0, *(np.flatnonzero(np.diff(values_L)) + 1).tolist(), len(values_L)]
    return [(start, end, int(values_L[start])) for start, end in pairwise(edges)]


@pictures.register
def localisation_sections(outputs: LocalisationOutputs, run: Run) -> list[Section]:
    """Return the videos with the fewest steps found: where each is done, and where it was put."""
    found = [video.done * video.placed for video in outputs.videos]
    done = np.array([max(int(video.done.any(axis=0).sum()), 1) for video in outputs.videos])
    recall = np.array([hits.sum() for hits in found]) / done
    blocks = []
    for place in [place for place in np.argsort(recall, kind="stable")[:NUM_VIDEOS] if recall[place] < 1]:
        video, (_, steps) = outputs.videos[place], run.item(int(place))
        name = (
            f"{video.video_id} (task {video.task}): {found[place].sum()} of {video.done.any(axis=0).sum()} steps found"
        )
        blocks.append(tag("h3", escape(name)) + _placed(video.done, video.placed, steps.texts))
    text = "The videos with the smallest share of steps found. Bars: when a step is done; dark marks: where it was put."
    return [Section("Worst failures", "".join(blocks) or tag("p", "Every step is found."), text)]


def _placed(done_LK: np.ndarray, placed_LK: np.ndarray, texts: Sequence[str]) -> str:
    rows = []
    for step, text in enumerate(texts):
        colour = _STEP_COLOURS[step % len(_STEP_COLOURS)]
        stretches = [Bar(s, e, colour, text) for s, e, is_done in runs_of(done_LK[:, step]) if is_done]
        marks = [Bar(float(s), float(s) + 1, INK, f"put: {text}") for s in np.flatnonzero(placed_LK[:, step])]
        rows.append((text, [*stretches, *marks]))
    return bars("steps done and put", rows, len(done_LK))


@pictures.register
def moment_sections(outputs: MomentOutputs, run: Run) -> list[Section]:
    """Return the descriptions whose first moment overlaps least with what people chose."""
    ranking_NM = outputs.ranking("released")
    found = agreement(ranking_NM, outputs.times)
    worst = [query for query in np.lexsort((-found.ranks, found.ious))[:NUM_MOMENTS] if found.ious[query] < 1]
    blocks = []
    for query in worst:
        people = [tuple(time) for time in outputs.times[query].tolist() if time[0] >= 0]
        best = MOMENTS[ranking_NM[query, 0]]
        rows = [("found", [_moment(best, COLOURS[1])])]
        rows += [(f"person {place}", [_moment(time, COLOURS[0])]) for place, time in enumerate(people, start=1)]
        rank = f"chosen moments at rank {found.ranks[query]:.1f}, overlap {100 * abs(found.ious[query]):.0f} %"
        head = (
            f"{tag('span', f'“{escape(run.item(int(query))[1])}”', class_='words')} {tag('span', rank, class_='badge')}"
        )
        name = outputs.video_ids[query]
        picture = run.frames.uri(ClipId(name))
        image = f'<img class="frame" src="{picture}" alt="key frame">' if picture else ""
        where = tag("span", escape(f"{name}, {outputs.num_seconds[query]} s of features"), class_="where")
        chart = bars("moments found and chosen", rows, NUM_SECONDS)
        blocks.append(tag("article", f"<p>{head}<br>{where}</p>{image}{chart}", class_="query"))
    text = "Descriptions whose first moment (published form) overlaps least with the moments that people chose."
    return [Section("Worst failures", "".join(blocks) or tag("p", "Every moment is the chosen one."), text)]


def _moment(pieces: tuple[int, ...], colour: str) -> Bar:
    return Bar(PIECE_S * pieces[0], PIECE_S * (pieces[-1] + 1), colour, "moment")
