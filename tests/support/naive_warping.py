"""DTW and OTAM of one pair, a cell at a time, written from the definitions."""

import numpy as np


def blocks_of(
    scores: np.ndarray, rows: list[int], cols: list[int]
) -> list[list[np.ndarray]]:
    """Returns the scores of the captions and clips of each paragraph and video."""
    parts = np.split(scores, np.cumsum(rows)[:-1])
    return [np.split(part, np.cumsum(cols)[:-1], axis=1) for part in parts]


def pad(d: np.ndarray, num_rows: int, num_cols: int, *, border: bool) -> np.ndarray:
    """Returns distances padded as in the release, with its slices. Larger blocks are cropped.

    Args:
        num_rows, num_cols: the size, without the border.
        border: add a column of zeros on either side first.
    """
    more_rows, more_cols = num_rows - d.shape[0], num_cols - d.shape[1]
    if border:
        d = np.pad(d, ((0, 0), (1, 1)))
    padded = np.full((d.shape[0] + more_rows, d.shape[1] + more_cols), np.inf)
    kept = d[: len(padded), : padded.shape[1]]
    padded[: kept.shape[0], : kept.shape[1]] = kept
    padded[-more_rows - 1 :, -more_cols:] = 0  # [-0:] is everything
    return padded


def dtw(d: np.ndarray) -> float:
    """Returns the cost of the cheapest path with steps down, to the right and diagonally."""
    total = np.full((d.shape[0] + 1, d.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for r, c in np.ndindex(d.shape):
        total[r + 1, c + 1] = d[r, c] + min(
            total[r, c], total[r, c + 1], total[r + 1, c]
        )
    return float(total[-1, -1])


def otam(d: np.ndarray, sign: int) -> float:
    """Returns the cost of the cheapest path with steps down only in columns 0, 1 and the last.

    Args:
        d: distances with their border columns.
        sign: factor of the cost before column 1: 1, or -1 as in the release.
    """
    total, last = np.zeros(d.shape), d.shape[1] - 1
    total[0, 1:] = np.cumsum(d[0, 1:])
    for r in range(1, d.shape[0]):
        before, here = total[r - 1], total[r]
        here[1] = d[r, 1] + sign * min(before[0], before[1], here[0])
        for c in range(2, last):
            here[c] = d[r, c] + min(before[c - 1], here[c - 1])
        here[last] = d[r, last] + min(before[last - 1], before[last], here[last - 1])
    return float(total[-1, -1])


def score(d: np.ndarray, kind: str, form: str, num_rows: int, num_cols: int) -> float:
    """Returns the score of a block of distances.

    Args:
        kind: `dtw` or `otam`.
        form: `released` or `corrected`.
        num_rows, num_cols: the size to which the release pads.
    """
    if kind == "dtw":
        return -dtw(
            pad(d, num_rows, num_cols, border=False) if form == "released" else d
        )
    if form == "released":
        return -sum(
            otam(pad(side, num_rows, num_cols, border=True), -1) for side in (d, d.T)
        )
    return -sum(otam(np.pad(side, ((0, 0), (1, 1))), 1) for side in (d, d.T))
