"""The cost of aligning two sequences in order, by DTW and by OTAM, for many pairs of one size.

DTW (dynamic time warping) aligns all rows and columns, from the first of both to the last of both.
A row may have several columns, and a column several rows. OTAM (ordered temporal alignment) aligns
all columns, each with the row of the column before it or with the next row. Rows before the first
aligned one and after the last one are left out at no cost.

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


def dtw_cost(
    distance_RKP: np.ndarray, size: Size, form: Form = "released"
) -> np.ndarray:
    """Returns the cost [P] of dynamic time warping.

    Args:
        distance_RKP: float32.
        size: largest numbers of rows and columns of any block; only the released form reads it.
        form: `released` pads every block to `size`. This lets a path skip the last cell, and
            overwrites the last row of a block that already has the most columns. `corrected` ends
            in the last cell of the block itself.
    """
    if form == "released":
        distance_RKP = pad(distance_RKP, size)
    total_RKP = cumulate_dtw(distance_RKP)
    return total_RKP[-1, -1]


def otam_cost(
    distance_RKP: np.ndarray, size: Size, form: Form = "released"
) -> np.ndarray:
    """Returns the cost [P] of ordered temporal alignment, of the block plus of its transpose.

    Args:
        distance_RKP: float32.
        size: largest numbers of rows and columns of any block; only the released form reads it.
        form: `released` pads as `dtw_cost` does, both blocks to `size` although one of them is
            transposed, and subtracts the minimum in the first column. `corrected` adds the minimum,
            and ends in the last cell of the block itself.
    """
    num_pairs = distance_RKP.shape[2]
    cost_P = np.zeros(num_pairs, dtype=np.float32)
    for side_RKP in (distance_RKP, distance_RKP.swapaxes(0, 1)):
        # A border column of zeros on each side lets a path begin and end at any row.
        bordered_RKP = np.pad(side_RKP, ((0, 0), (1, 1), (0, 0)))
        if form == "released":
            max_rows, max_cols = size
            padded_RKP = pad(bordered_RKP, (max_rows, max_cols + 2))
            total_RKP = cumulate_otam(padded_RKP, first_sign=-1)
        else:
            total_RKP = cumulate_otam(bordered_RKP, first_sign=1)
        cost_P = cost_P + total_RKP[-1, -1]
    return cost_P


def pad(block_RKP: np.ndarray, size: Size) -> np.ndarray:
    """Returns blocks that are padded to `size` as in the release. Larger blocks are cropped.

    New cells are inf. Then the new columns become zero from the last real row on. The slices are
    as in the release, including their meaning for 0 and for negative numbers: in a block without
    new columns, the slice of the new columns selects *all* columns, so the last real row is
    overwritten with zeros.
    """
    num_rows, num_cols, num_pairs = block_RKP.shape
    max_rows, max_cols = size
    padded_RKP = np.full((max_rows, max_cols, num_pairs), np.inf, dtype=block_RKP.dtype)
    kept_RKP = block_RKP[:max_rows, :max_cols]
    kept_rows, kept_cols, _ = kept_RKP.shape
    padded_RKP[:kept_rows, :kept_cols] = kept_RKP
    new_rows = max_rows - num_rows
    new_cols = max_cols - num_cols
    last_real_row = -new_rows - 1
    padded_RKP[last_real_row:, -new_cols:] = 0
    return padded_RKP


# DTW and OTAM are both filled row by row. The cost of a cell is its distance plus the cost of its
# cheapest predecessor. Predecessors are in the row above or directly to the left. The row above is
# complete, so its cheapest predecessors are found for a whole row at once. The left ones are not:
# `_fill_row` walks along the row.


def cumulate_dtw(distance_RKP: np.ndarray) -> np.ndarray:
    """Returns the cost of the best path from the first cell to every cell.

    A path takes steps to the right, down, and diagonally.
    """
    num_rows = len(distance_RKP)
    # The first row and column can only be reached along themselves.
    total_RKP = np.empty_like(distance_RKP)
    first_row_KP = distance_RKP[0]
    first_column_RP = distance_RKP[:, 0]
    total_RKP[0] = np.cumsum(first_row_KP, axis=0)
    total_RKP[:, 0] = np.cumsum(first_column_RP, axis=0)
    for r in range(1, num_rows):
        above_KP = total_RKP[r - 1]
        # A cell can be reached diagonally (one column to the left) or from directly above.
        diagonal_KP = above_KP[:-1]
        straight_KP = above_KP[1:]
        from_above_KP = np.minimum(diagonal_KP, straight_KP)
        _fill_row(total_RKP[r], distance_RKP[r], from_above_KP, first=1)
    return total_RKP


def cumulate_otam(
    distance_RKP: np.ndarray, *, first_sign: Literal[-1, 1]
) -> np.ndarray:
    """Returns OTAM's cumulative costs O, with a hard minimum.

    A path goes straight down in the border columns only. Column 0 is 0, and row 0 is O[0, c] =
    d[0, c] + O[0, c-1]. All other cells are O[r, c] = d[r, c] + min(O[r-1, c-1], O[r, c-1]). In
    column 1 and in the last column, the minimum also includes O[r-1, c]. In column 1, it is
    multiplied by `first_sign`.

    Args:
        distance_RKP: float32, distances with their border columns.
        first_sign: 1, or -1 as in the release.
    """
    num_rows = len(distance_RKP)
    total_RKP = np.zeros_like(distance_RKP)
    first_row_KP = distance_RKP[0, 1:]
    total_RKP[0, 1:] = np.cumsum(first_row_KP, axis=0)
    for r in range(1, num_rows):
        above_KP = total_RKP[r - 1]
        here_KP = total_RKP[r]
        row_KP = distance_RKP[r]
        # In column 1 the other two predecessors are in column 0, whose cost is 0.
        cheapest_P = np.minimum(above_KP[1], 0)
        here_KP[1] = row_KP[1] + first_sign * cheapest_P
        # The others are reached diagonally, and the last column from directly above, too.
        from_above_KP = above_KP[:-1].copy()
        from_above_KP[-1] = np.minimum(above_KP[-2], above_KP[-1])
        _fill_row(here_KP, row_KP, from_above_KP, first=2)
    return total_RKP


def _fill_row(
    total_KP: np.ndarray, distance_KP: np.ndarray, from_above_KP: np.ndarray, first: int
) -> None:
    """Fills a row of costs in place, from column `first` on.

    Args:
        total_KP: the row. The columns before `first` are known.
        distance_KP: the distances of the row.
        from_above_KP: cost of the best predecessor in the row above, for columns 1, 2, ...
        first: the first column to fill.
    """
    for c in range(first, len(total_KP)):
        cheapest_P = np.minimum(from_above_KP[c - 1], total_KP[c - 1])
        total_KP[c] = distance_KP[c] + cheapest_P
