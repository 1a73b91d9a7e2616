"""Heat maps of sentences by seconds: similarity and transport plan of a few test videos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from mmpt.endtasks.how2align.evaluation import AlignedVideo, How2AlignOutputs
from mmpt.inference.alignment import align_sentences, mean_of_windows, span_around
from mmpt.inference.mmptmodel import EPSILON, ITERATIONS
from mmpt.inference.windows import batches, cut_windows, embed_windows
from mmpt.losses.sinkhorn import bucket_transport
from mmpt.models import MMFusionSeparate
from mmpt.processors.aligner import Aligner
from mmpt.reporting.figures import Panel, heat_maps
from mmpt.reporting.pictures import Section, pictures
from mmpt.reporting.run import Run

NUM_FIGURES = 4
MOST_SENTENCES = 16
NUM_FAILURES = 10
_WINDOWS_AT_ONCE = 32
_NEVER = -10.0
"""Stands for a cosine where nothing was compared: the plan puts nothing there."""
_BUCKET_SHARE = 0.3
"""Share of the cosines below the bucket's value, as in training. Where sentences are compared with
some seconds only, a plan without a bucket must put these seconds' mass on them: on the demo the
found times then overlap the true ones by 0.53, with a bucket by 0.63."""

T = TypeVar("T")
Span = tuple[float, float]


class Figure(NamedTuple):
    """A video's sentences against its seconds."""

    video_id: str
    sentences: Sequence[str]
    similarity: np.ndarray  # float [S, L], NaN where nothing was compared
    plan: np.ndarray  # float [S, L]
    truth: Sequence[Span | None]
    found: Sequence[tuple[int, int]]


def spread(items: Sequence[T], most: int) -> list[T]:
    """Returns at most `most` items at even distances, the first and the last among them."""
    if not items:
        return []
    return [
        items[place]
        for place in np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).astype(int))
    ]


def align_video(
    run: Run,
    video_id: str,
    video_key: Any,
    sentences: Sequence[str],
    text_SD: np.ndarray,
    truth: Sequence[Span | None],
) -> Figure | None:
    """Align sentences with every second of a video; None for a model that is not two towers.

    Args:
        video_key: what the video reader takes.
        text_SD: float32, the pooled sentences.
        truth: start and end of each in seconds, where known.
    """
    if not (isinstance(run.model, MMFusionSeparate) and isinstance(run.dataset.aligner, Aligner)):
        return None
    video_LD = _seconds_of(
        run.model, run.dataset.aligner, np.array(run.dataset.video(video_key)), run.device
    )
    text = torch.from_numpy(text_SD).to(video_LD)
    aligned = align_sentences(text, video_LD, epsilon=EPSILON, iterations=ITERATIONS, monotone=True)
    return Figure(video_id, sentences, aligned.similarity, aligned.plan, truth, aligned.spans)


def _seconds_of(
    model: MMFusionSeparate, aligner: Aligner, feature_LE: np.ndarray, device: torch.device
) -> torch.Tensor:
    """Returns float [L, D], unit-length states of every second: means over overlapping windows."""
    size, dtype = aligner.max_video_len, next(model.parameters()).dtype
    parts = []
    with torch.inference_mode():
        windows = cut_windows(
            torch.from_numpy(feature_LE).to(device, dtype), size, max(size // 2, 1)
        )
        for some in batches(windows, _WINDOWS_AT_ONCE):
            _, states_NFD = embed_windows(model, some, aligner.special)
            parts += [(w.start, states_NFD[n, 1 : 1 + len(w.features)]) for n, w in enumerate(some)]
        return mean_of_windows(parts, len(feature_LE))


def alignment_section(
    figures: Sequence[Figure | None], more: str = ", sentences in order"
) -> list[Section]:
    """Returns the section of heat maps; none without figures.

    Args:
        more: ends the sentence that explains the marks.
    """
    known = [figure for figure in figures if figure is not None]
    data = {"figures": dict(map(_heat_maps, known)), "epsilon": EPSILON, "more": more}
    return [Section("Alignment of sentences and seconds", "alignment.html", data)] if known else []


def _heat_maps(figure: Figure) -> tuple[str, str]:
    """Returns the title and the picture of a figure."""
    pairs = zip(figure.truth, figure.found, strict=True)
    overlaps = [_overlap(true, found) for true, found in pairs if true]
    known = f", mean overlap of found and true times {np.mean(overlaps):.2f}" if overlaps else ""
    sizes = f"{len(figure.sentences)} sentences, {figure.plan.shape[1]} s"
    title = f"{figure.video_id}: {sizes}{known}"
    panels = [
        Panel("cosine", figure.similarity, "viridis"),
        Panel("transport plan", figure.plan, "Reds"),
    ]
    return title, heat_maps(
        figure.sentences, panels, title=title, truth=figure.truth, found=figure.found
    )


def _overlap(span: Span, other: Span) -> float:
    """Returns intersection over union of two stretches of time."""
    common = max(0.0, min(span[1], other[1]) - max(span[0], other[0]))
    return common / max(span[1] - span[0] + other[1] - other[0] - common, 1e-9)


@pictures.register
def align_sections(outputs: How2AlignOutputs, run: Run) -> list[Section]:
    """Returns heat maps of some videos, and the sentences placed farthest from their time."""
    texts = {
        str(video): [sentence.text for sentence in sentences]
        for video, sentences in run.test_items()
    }
    figures = [
        _how2align_figure(video, texts[video.video_id])
        for video in spread(outputs.videos, NUM_FIGURES)
    ]
    more = (
        ". Grey: never compared. A sentence without an outline is said, but not shown; a spare row "
        "and column of the plan take what fits nothing"
    )
    return [*alignment_section(figures, more), _far_off(outputs, texts)]


def _how2align_figure(video: AlignedVideo, texts: Sequence[str]) -> Figure | None:
    """Returns the first sentences that were compared with a second, up to the last such second."""
    rows = np.flatnonzero(video.covered.any(axis=1))[:MOST_SENTENCES]
    if not len(rows):
        return None
    seconds = slice(0, int(np.flatnonzero(video.covered[rows].any(axis=0))[-1]) + 1)
    covered, similarity = video.covered[rows, seconds], video.similarity[rows, seconds]
    bucket = torch.tensor(np.quantile(similarity[covered], _BUCKET_SHARE))
    compared = torch.from_numpy(np.where(covered, similarity, _NEVER))
    plan = bucket_transport(compared, bucket, ITERATIONS, EPSILON).numpy()
    found = [span_around(row, int(row.argmax())) for row in plan]
    truth = [
        (float(start), min(float(end), seconds.stop)) if shown and start < seconds.stop else None
        for (start, end), shown in zip(video.spans_s[rows], video.aligned[rows], strict=True)
    ]
    shown_similarity = np.where(covered, similarity, np.nan)
    return Figure(
        video.video_id, [texts[row] for row in rows], shown_similarity, plan, truth, found
    )


def _far_off(outputs: How2AlignOutputs, texts: dict[str, list[str]]) -> Section:
    """Returns the shown sentences that were placed farthest from their time."""
    misses = []
    for video in outputs.videos:
        filled = np.where(video.covered, video.similarity, -np.inf)
        for row in np.flatnonzero(video.aligned & video.covered.any(axis=1)):
            at, (start, end) = int(filled[row].argmax()), video.spans_s[row]
            off = max(start - at, at - end, 0.0)
            if off:
                miss = {
                    "video": video.video_id,
                    "words": texts[video.video_id][row],
                    "start_s": start,
                    "end_s": end,
                    "found_s": at,
                    "off_s": off,
                    "cosine": filled[row, at],
                }
                misses.append(miss)
    misses.sort(key=lambda miss: -miss["off_s"])
    return Section("Worst failures", "misses.html", {"misses": misses[:NUM_FAILURES]})
