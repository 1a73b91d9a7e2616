"""The cost of aligning two sequences in order, by DTW and by OTAM, for many pairs of one size.

Both are dynamic programs. They walk the cells of a block, and compute all pairs per cell, so the
axis of pairs is last.
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
        size: most rows and columns of any block; only the released form reads it.
        form: `released` pads every block to `size`. So a path can skip the last cell, and the last
            row of a block with all the columns is overwritten. `corrected` ends in the last cell of
            the block itself.
    """
    if form == "released":
        distance_RKP = pad(distance_RKP, size)
    return cumulate_dtw(distance_RKP)[-1, -1]


def otam_cost(distance_RKP: np.ndarray, size: Size, form: Form = "released") -> np.ndarray:
    """Returns the cost [P] of ordered temporal alignment, of the block plus of its transpose.

    Args:
        distance_RKP: float32.
        size: most rows and columns of any block; only the released form reads it.
        form: `released` pads as `dtw_cost` does, both blocks to `size` although one of them is
            transposed, and subtracts the minimum in the first column. `corrected` adds the minimum,
            and ends in the last cell of the block itself.
    """
    released = form == "released"
    total_P = np.zeros(distance_RKP.shape[2], dtype=np.float32)
    for side in (distance_RKP, distance_RKP.swapaxes(0, 1)):
        bordered = np.pad(side, ((0, 0), (1, 1), (0, 0)))
        padded = pad(bordered, (size[0], size[1] + 2)) if released else bordered
        total_P = total_P + cumulate_otam(padded, first_sign=-1 if released else 1)[-1, -1]
    return total_P


def pad(block_RKP: np.ndarray, size: Size) -> np.ndarray:
    """Returns blocks that are padded to `size` as in the release. Larger blocks are cropped.

    New cells are inf. Then the new columns become zero from the last real row on. The slices are
    as in the release, including their meaning for 0 and for negative numbers: in a block without
    new columns, the slice of the new columns selects *all* columns, so the last real row is
    overwritten with zeros.
    """
    more_rows, more_cols = size[0] - block_RKP.shape[0], size[1] - block_RKP.shape[1]
    padded = np.full((*size, block_RKP.shape[2]), np.inf, dtype=block_RKP.dtype)
    kept = block_RKP[: size[0], : size[1]]
    padded[: kept.shape[0], : kept.shape[1]] = kept
    padded[-more_rows - 1 :, -more_cols:] = 0
    return padded


def cumulate_dtw(distance_RKP: np.ndarray) -> np.ndarray:
    """Returns the cost of the best path from the first cell to every cell.

    A path takes steps to the right, down, and diagonally.
    """
    # The first row and column can only be reached along themselves.
    total_RKP = np.empty_like(distance_RKP)
    total_RKP[0] = np.cumsum(distance_RKP[0], axis=0)
    total_RKP[:, 0] = np.cumsum(distance_RKP[:, 0], axis=0)
    for r in range(1, distance_RKP.shape[0]):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        # The better of the two predecessors in the row above, for all columns at once.
        diagonal_or_up_KP = np.minimum(above_KP[:-1], above_KP[1:])
        for c in range(1, distance_RKP.shape[1]):
            here_KP[c] = distance_RKP[r, c] + np.minimum(diagonal_or_up_KP[c - 1], here_KP[c - 1])
    return total_RKP


def cumulate_otam(distance_RKP: np.ndarray, *, first_sign: Literal[-1, 1]) -> np.ndarray:
    """Returns OTAM's cumulative costs O, with a hard minimum.

    A path goes straight down in the border columns only. Column 0 is 0, and row 0 is O[0, c] =
    d[0, c] + O[0, c-1]. All other cells are O[r, c] = d[r, c] + min(O[r-1, c-1], O[r, c-1]). In
    column 1 and in the last column, the minimum also includes O[r-1, c]. In column 1, it is
    multiplied by `first_sign`.

    Args:
        distance_RKP: float32, distances with their border columns.
        first_sign: 1, or -1 as in the release.
    """
    num_rows, num_cols = distance_RKP.shape[:2]
    total_RKP = np.zeros_like(distance_RKP)
    total_RKP[0, 1:] = np.cumsum(distance_RKP[0, 1:], axis=0)
    for r in range(1, num_rows):
        above_KP, here_KP = total_RKP[r - 1], total_RKP[r]
        # The predecessors in the row above: the diagonal one, and in the last column the upper one.
        diagonal_or_up_KP = above_KP[:-1].copy()
        diagonal_or_up_KP[-1] = np.minimum(above_KP[-2], above_KP[-1])
        # In column 1 the other two predecessors are in column 0, whose cost is 0.
        here_KP[1] = distance_RKP[r, 1] + first_sign * np.minimum(above_KP[1], 0)
        for c in range(2, num_cols):
            here_KP[c] = distance_RKP[r, c] + np.minimum(diagonal_or_up_KP[c - 1], here_KP[c - 1])
    return total_RKP
