"""Alignment of sentences with seconds: per-second states of a video, and a transport plan.

Pure functions of tensors. Legend: S sentences, L seconds, W windows, F seconds per window, D hidden
size.
Source: Norton (arXiv 2401.16702), Eq. 7 for the transport; TAN's HTM-Align protocol for the
overlapping windows.
"""

from dataclasses import dataclass

import numpy as np
import torch

from mmpt.losses.sinkhorn import transport

EDGE = 0.5
"""A span reaches as far as the plan stays above this share of its peak."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Sentences set against the seconds of a video."""

    plan: np.ndarray
    """float [S, L], where each sentence's unit of mass goes; a row sums to about 1, every column to
    S / L.
    """
    spans: list[tuple[int, int]]
    """Start and end (exclusive) of every sentence, in seconds."""
    scores: np.ndarray
    """float [S], mean cosine of the sentence and its span's seconds; low where a sentence is not in
    the picture.
    """
    similarity: np.ndarray
    """float [S, L], the cosines."""


def align_sentences(
    text_SD: torch.Tensor,
    video_LD: torch.Tensor,
    *,
    epsilon: float,
    iterations: int,
    monotone: bool,
) -> Alignment:
    """Aligns sentences with seconds by entropic optimal transport of their cosines.

    Args:
        text_SD: float [S, D], pooled sentences.
        video_LD: float [L, D], unit-length states of each second.
        epsilon: smoothness of the plan; the smaller, the sharper.
        iterations: of Sinkhorn's algorithm.
        monotone: let sentences start in the order given.
    """
    similarity_SL = torch.nn.functional.normalize(text_SD, dim=-1) @ video_LD.T
    plan = transport(similarity_SL, iterations, epsilon).cpu().numpy()
    similarity = similarity_SL.cpu().numpy()
    peaks = monotone_peaks(plan) if monotone else plan.argmax(axis=1)
    spans = [span_around(row, int(peak)) for row, peak in zip(plan, peaks, strict=True)]
    scores = [row[start:end].mean() for row, (start, end) in zip(similarity, spans, strict=True)]
    return Alignment(plan=plan, spans=spans, scores=np.array(scores), similarity=similarity)


def span_around(row_L: np.ndarray, peak: int) -> tuple[int, int]:
    """Returns the stretch of seconds around `peak`, end exclusive, where the row stays above `EDGE`
    of its peak.
    """
    below = np.flatnonzero(row_L < EDGE * row_L[peak])
    before, after = below[below < peak], below[below > peak]
    return int(before[-1]) + 1 if len(before) else 0, int(after[0]) if len(after) else len(row_L)


def monotone_peaks(plan_SL: np.ndarray) -> np.ndarray:
    """Returns int [S], one second per row, never decreasing, of the largest possible sum of
    entries.

    Dynamic programming in O(S L): best[s, l] = plan[s, l] + max over k <= l of best[s - 1, k].
    """
    num, seconds = plan_SL.shape
    came_from = np.zeros((num, seconds), dtype=np.int64)
    best = plan_SL[0].astype(np.float64)
    for row in range(1, num):
        highest = np.maximum.accumulate(best)
        is_new = np.concatenate([[True], best[1:] > highest[:-1]])
        came_from[row] = np.maximum.accumulate(np.where(is_new, np.arange(seconds), 0))
        best = plan_SL[row] + highest
    peaks = np.zeros(num, dtype=np.int64)
    peaks[-1] = best.argmax()
    for row in range(num - 1, 0, -1):
        peaks[row - 1] = came_from[row, peaks[row]]
    return peaks
