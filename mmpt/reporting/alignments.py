"""Heat maps of sentences by seconds: similarity and transport plan of a few test videos."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from mmpt.endtasks.how2align.evaluation import AlignedVideo, How2AlignOutputs
from mmpt.inference.alignment import span_around
from mmpt.inference.mmptmodel import EPSILON, ITERATIONS, MMPTModel
from mmpt.losses.sinkhorn import bucket_transport
from mmpt.models import MMFusionSeparate
from mmpt.reporting.figures import heat_maps
from mmpt.reporting.run import Run, Section, pictures

NUM_FIGURES = 4
MOST_SENTENCES = 16
NUM_FAILURES = 10
_NEVER = -10.0
"""Stands for a cosine where nothing was compared: the plan puts nothing there."""
_BUCKET_SHARE = 0.3
"""Share of the cosines below the bucket's value, as in training. Where sentences are compared with
some seconds only, a plan without a bucket must put these seconds' mass on them: on the demo the
found times then overlap the true ones by 0.53, with a bucket by 0.63."""

T = TypeVar("T")
Span = tuple[float, float]
Figure = tuple[str, str]
"""Title and SVG of a video's sentences against its seconds."""


def spread(items: Sequence[T], most: int) -> list[T]:
    """Returns at most `most` items at even distances, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)
    return [items[place] for place in np.unique(places)]


def align_video(
    run: Run,
    video_id: str,
    video_key: Any,
    sentences: Sequence[str],
    text_SD: np.ndarray,
    truth: Sequence[Span | None],
) -> Figure | None:
    """Aligns sentences with every second of a video; None for a model that is not two towers.

    Args:
        video_key: what the video reader takes.
        text_SD: float32, the pooled sentences.
        truth: start and end of each in seconds, where known.
    """
    if not isinstance(run.model, MMFusionSeparate):
        return None
    model = MMPTModel(run.model, run.config.dataset, run.config.model).eval()
    features, text = np.array(run.dataset.video(video_key)), torch.from_numpy(text_SD)
    found = model.align(features, text, monotone=True)
    return _draw(video_id, sentences, truth, found.similarity, found.plan, found.spans)


def alignment_section(
    figures: Iterable[Figure | None], more: str = ", sentences in order"
) -> list[Section]:
    """Returns the section of heat maps; none without figures.

    Args:
        more: ends the sentence that explains the marks.
    """
    known = dict(filter(None, figures))
    data = {"figures": known, "epsilon": EPSILON, "more": more}
    return [Section("Alignment of sentences and seconds", "alignment.html", data)] if known else []


def _draw(
    video_id: str,
    sentences: Sequence[str],
    truth: Sequence[Span | None],
    similarity_SL: np.ndarray,
    plan_SL: np.ndarray,
    found: Sequence[tuple[int, int]],
) -> Figure:
    overlaps = []
    for true, span in zip(truth, found, strict=True):
        if true:
            common = max(0.0, min(true[1], span[1]) - max(true[0], span[0]))
            whole = true[1] - true[0] + span[1] - span[0] - common
            overlaps.append(common / max(whole, 1e-9))
    known = f", mean overlap of found and true times {np.mean(overlaps):.2f}" if overlaps else ""
    title = f"{video_id}: {len(sentences)} sentences, {plan_SL.shape[1]} s{known}"
    picture = heat_maps(sentences, similarity_SL, plan_SL, title=title, truth=truth, found=found)
    return title, picture


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
    failures = Section("Worst failures", "misses.html", {"misses": worst})
    return [*alignment_section(figures, more), failures]


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
    sentences, shown_similarity = (
        [texts[row] for row in rows],
        np.where(covered, similarity, np.nan),
    )
    return _draw(video.video_id, sentences, truth, shown_similarity, plan, found)
