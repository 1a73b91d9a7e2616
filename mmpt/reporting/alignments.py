"""Heat maps of sentences by seconds: the similarity and the transport plan of a few test videos."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from mmpt.inference.alignment import EPSILON
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.models import MMFusionSeparate
from mmpt.reporting.figures import heat_maps
from mmpt.reporting.run import EvaluationRun, Section

NUM_HEAT_MAPS = 4
MAX_SENTENCES = 16
T = TypeVar("T")
Span = tuple[float, float]
HeatMap = tuple[str, str]
"""Title and SVG of the heat maps of a video."""


def spread(items: Sequence[T], max_items: int) -> list[T]:
    """Returns at most `max_items` evenly spaced items, including the first and the last one."""
    num_items = min(max_items, len(items))
    positions = np.linspace(0, len(items) - 1, num_items).astype(int)
    return [items[position] for position in np.unique(positions)]


def align_video(
    run: EvaluationRun,
    video_id: str,
    video_key: Any,
    sentences: Sequence[str],
    truth: Sequence[Span | None],
    end_s: int | None = None,
) -> HeatMap | None:
    """Aligns sentences with the seconds of a video, and draws the result.

    Args:
        run: the evaluation.
        video_id: the video, for the title.
        video_key: the key of the video in the dataset.
        sentences: the sentences, in order.
        truth: start and end in seconds of each sentence; None if they are not known.
        end_s: only the seconds before this one are shown; None: the whole video.
    Returns:
        The title and the SVG, or None if the model does not have two towers.
    """
    if not isinstance(run.model, MMFusionSeparate):
        return None
    config = run.config.dataset
    model = MMPTModel(run.model, config, run.config.model).eval()
    end_row = None if end_s is None else config.num_rows(end_s)
    features = np.array(run.dataset.video(video_key)[:end_row])
    alignment = model.align(features, sentences, monotone=True)
    num_seconds = alignment.plan.shape[1]
    title = f"{video_id}: {len(sentences)} sentences, {num_seconds} s"
    overlaps = []
    for true_span, span in zip(truth, alignment.spans, strict=True):
        if true_span:
            overlaps.append(_overlap(true_span, span))
    if overlaps:
        title += f", mean overlap of found and true times {np.mean(overlaps):.2f}"
    return title, heat_maps(sentences, alignment, title=title, truth=truth)


def _overlap(true_span: Span, span: Span) -> float:
    """Returns the intersection over union of two spans."""
    true_start, true_end = true_span
    start, end = span
    intersection = max(0.0, min(true_end, end) - max(true_start, start))
    union = true_end - true_start + end - start - intersection
    return intersection / max(union, 1e-9)


def alignment_section(maps: Iterable[HeatMap | None]) -> list[Section]:
    """Returns the section of heat maps, or an empty list if there are none."""
    known = dict(filter(None, maps))
    if not known:
        return []
    data = {"maps": known, "epsilon": EPSILON}
    return [Section("Alignment of sentences and seconds", "alignment.html", data)]
