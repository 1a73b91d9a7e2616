"""The cost of aligning two sequences in order, by DTW and by OTAM, for many pairs of one size.

The dynamic programmes walk the cells of one alignment and treat all pairs per cell, so arrays are
cells first.
Legend: R rows (captions), K columns (clips), P pairs. `released` reproduces the published numbers
with their padding defects; `corrected` aligns each pair's own block.
Sources: TempCLR (arXiv 2212.13738) for the protocol, OTAM (arXiv 1906.11415), Norton (arXiv
2401.16702).
"""

from typing import Literal

import numpy as np

Form = Literal["released", "corrected"]
Size = tuple[int, int]
"""Rows and columns that the release pads a block to."""


def dtw_cost(distance_RKP: np.ndarray, size: Size, form: Form = "released") -> np.ndarray:
    """Returns the cost [P] of dynamic time warping.

    Args:
        distance_RKP: float32.
        size: most rows and columns of any block; only the released form looks at it.
        form: `released` pads every block to `size`, which lets a path skip the last cell, and wipes
            the last row of a block that has all the columns; `corrected` ends in the block's own
            last cell.
    """
    if form == "released":
        distance_RKP = pad(distance_RKP, size)
    return cumulate_dtw(distance_RKP)[-1, -1]


def otam_cost(distance_RKP: np.ndarray, size: Size, form: Form = "released") -> np.ndarray:
    """Returns the cost [P] of ordered temporal alignment, of the block plus of its transpose.

    Args:
        distance_RKP: float32.
        size: most rows and columns of any block; only the released form looks at it.
        form: `released` pads as `dtw_cost` does, both blocks to `size` although one of them is
            transposed, and subtracts the minimum in the first column; `corrected` adds it and ends
            in the block's own last cell.
    """
    released = form == "released"
    total_P = np.zeros(distance_RKP.shape[2], dtype=np.float32)
    for side in (distance_RKP, distance_RKP.swapaxes(0, 1)):
        bordered = np.pad(side, ((0, 0), (1, 1), (0, 0)))
        padded = pad(bordered, (size[0], size[1] + 2)) if released else bordered
        total_P = total_P + cumulate_otam(padded, first_sign=-1 if released else 1)[-1, -1]
    return total_P


def pad(block_RKP: np.ndarray, size: Size) -> np.ndarray:
    """Pads blocks to `size` as the release does: inf around, then zeros from the last real row on
    in the new columns. Larger blocks are cropped.

    The slices are the release's own, with what they mean for 0 (everything) and for negative
    numbers. A block without new columns gets the zeros in *all* columns, which wipes its last real
    row.
    """
    more_rows, more_cols = size[0] - block_RKP.shape[0], size[1] - block_RKP.shape[1]
    padded = np.full((*size, block_RKP.shape[2]), np.inf, dtype=block_RKP.dtype)
    kept = block_RKP[: size[0], : size[1]]
    padded[: kept.shape[0], : kept.shape[1]] = kept
    padded[-more_rows - 1 :, -more_cols:] = 0
    return padded


def cumulate_dtw(distance_RKP: np.ndarray) -> np.ndarray:
    """Returns the cost of the best path from the first cell to every cell, by steps right, down and
    diagonal.
    """
    total_RKP = np.empty_like(distance_RKP)
    total_RKP[0] = np.cumsum(distance_RKP[0], axis=0)
    total_RKP[:, 0] = np.cumsum(distance_RKP[:, 0], axis=0)
    for r in range(1, distance_RKP.shape[0]):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        diagonal_or_up_KP = np.minimum(above_KP[:-1], above_KP[1:])
        for c in range(1, distance_RKP.shape[1]):
            here_KP[c] = distance_RKP[r, c] + np.minimum(diagonal_or_up_KP[c - 1], here_KP[c - 1])
    return total_RKP


def cumulate_otam(distance_RKP: np.ndarray, *, first_sign: Literal[-1, 1]) -> np.ndarray:
    """Returns OTAM's cumulative costs O (hard minimum), where a path goes straight down in the
    border columns only.

    O[0, c] = d[0, c] + O[0, c-1]; column 0 is 0; then O[r, c] = d[r, c] + min(O[r-1, c-1], O[r,
    c-1]), and in column 1 (there times `first_sign`) and the last column the minimum also takes
    O[r-1, c].

    Args:
        distance_RKP: float32, distances with their border columns.
        first_sign: what the minimum in column 1 is multiplied with: 1, or -1 as the release has it.
    """
    num_rows, num_cols = distance_RKP.shape[:2]
    total_RKP = np.zeros_like(distance_RKP)
    total_RKP[0, 1:] = np.cumsum(distance_RKP[0, 1:], axis=0)
    for r in range(1, num_rows):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        diagonal_or_up_KP = above_KP[:-1].copy()
        diagonal_or_up_KP[-1] = np.minimum(above_KP[-2], above_KP[-1])
        # Column 0 costs nothing.
        here_KP[1] = distance_RKP[r, 1] + first_sign * np.minimum(above_KP[1], 0)
        for c in range(2, num_cols):
            here_KP[c] = distance_RKP[r, c] + np.minimum(diagonal_or_up_KP[c - 1], here_KP[c - 1])
    return total_RKP
