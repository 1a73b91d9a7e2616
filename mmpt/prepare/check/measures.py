"""Measures of captions and feature rows, as pure functions of arrays.

Legend: V videos, C captions of all videos, R feature rows of all videos, D features (columns).
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

BLOCK_ROWS = 8192  # feature rows read at a time; 16 MB as float32


def caption_seconds(
    starts_C: np.ndarray,
    ends_C: np.ndarray,
    owners_C: np.ndarray,
    seconds_V: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes how many seconds of every video have captions, as a sum and as a union.

    The union of the intervals of a video is found by sorting them by start. Each interval adds the
    part of it that begins after the latest end so far.

    Args:
        starts_C: finite start times in seconds, in any order within a video.
        ends_C: finite end times in seconds. A caption that ends before it starts counts as empty.
        owners_C: the video of each caption, int, non-decreasing.
        seconds_V: length of every video in seconds.
    Returns:
        The sum of caption durations within each video, and the number of seconds with at least one
        caption; both float64 [V].
    """
    seconds_V = seconds_V.astype(np.float64)
    # Cut the captions to their videos, and sort them by video and start.
    lengths_C = seconds_V[owners_C]
    starts_C = np.clip(starts_C.astype(np.float64), 0, lengths_C)
    ends_C = np.clip(ends_C.astype(np.float64), 0, lengths_C)
    ends_C = np.maximum(ends_C, starts_C)
    order_C = np.lexsort((starts_C, owners_C))
    owners_C = owners_C[order_C]
    # Place the videos one after another on one time line, so that one running maximum gives the
    # latest end so far for all videos.
    lengths_V = seconds_V + 1
    offsets_V = np.cumsum(lengths_V) - lengths_V
    offsets_C = offsets_V[owners_C]
    starts_C = starts_C[order_C] + offsets_C
    ends_C = ends_C[order_C] + offsets_C
    previous_ends_C = np.concatenate([[-1.0], ends_C])[:-1]
    latest_ends_C = np.maximum.accumulate(previous_ends_C)
    # Each caption adds its part after the latest end.
    new_starts_C = np.maximum(starts_C, latest_ends_C)
    new_C = np.maximum(ends_C - new_starts_C, 0)
    durations_C = ends_C - starts_C
    num_videos = len(seconds_V)
    spoken_V = np.bincount(owners_C, weights=durations_C, minlength=num_videos)
    covered_V = np.bincount(owners_C, weights=new_C, minlength=num_videos)
    return spoken_V, covered_V


class RowMeasures(NamedTuple):
    """Measures of feature rows."""

    norms: np.ndarray
    """L2 norm of every row, float32 [R]."""
    is_still: np.ndarray
    """Whether a row equals the previous one, bool [R]."""
    is_constant: np.ndarray
    """Whether a column has a single value in all rows (at least two), bool [D]."""
    direction: np.ndarray
    """Sum of the normalised rows, without zero and damaged rows, float64 [D]."""


def measure_rows(data_RD: np.ndarray, block_rows: int = BLOCK_ROWS) -> RowMeasures:
    """Measures feature rows, in blocks.

    Args:
        data_RD: mapped floats.
        block_rows: number of rows of a block.
    """
    num_rows, num_columns = data_RD.shape
    norms_R = np.empty(num_rows, dtype=np.float32)
    still_R = np.zeros(num_rows, dtype=bool)
    varies_D = np.full(num_columns, num_rows < 2)
    sum_D = np.zeros(num_columns)
    for begin in range(0, num_rows, block_rows):
        # A block begins with the last row of the previous block, to compare its first row with.
        first = max(begin - 1, 0)
        block = data_RD[first : begin + block_rows].astype(np.float32)
        end = first + len(block)
        norms_R[first:end] = np.linalg.norm(block, axis=1)
        # Compare each row with the previous one.
        is_same = block[1:] == block[:-1]
        still_R[first + 1 : end] = is_same.all(axis=1)
        varies_D |= ~is_same.all(axis=0)
        # Sum the directions of the new rows.
        norms = norms_R[begin:end]
        rows = block[begin - first :]
        is_good = np.isfinite(norms) & (norms > 0)
        sum_D += (1 / norms[is_good]) @ rows[is_good]
    return RowMeasures(norms_R, still_R, ~varies_D, sum_D)


def num_true(mask: np.ndarray) -> int:
    """Returns the number of true values."""
    return int(mask.sum())


def num_repeated(values: Sequence[Hashable]) -> int:
    """Returns the number of values that are equal to an earlier one."""
    return len(values) - len(set(values))
