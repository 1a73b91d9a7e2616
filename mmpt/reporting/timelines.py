"""Helpers of the reports about steps: colours, and stretches of equal values along a video."""

from itertools import pairwise

import numpy as np

NUM_VIDEOS = 6
"""Number of videos that a section shows."""
STEP_COLOURS = (
    *(
        "#4e79a7",
        "#f28e2b",
        "#59a14f",
        "#e15759",
        "#b07aa1",
        "#edc948",
        "#76b7b2",
        "#ff9da7",
    ),
    *(
        "#9c755f",
        "#1f3a5f",
        "#8cd17d",
        "#d37295",
        "#499894",
        "#a0601a",
        "#79706e",
        "#6b4c9a",
    ),
)


def runs_of(values_L: np.ndarray) -> list[tuple[int, int, int]]:
    """Returns (start, end, value) of every stretch of equal values, end exclusive."""
    changes = np.flatnonzero(np.diff(values_L)) + 1
    edges = [0, *changes.tolist(), len(values_L)]
    runs = []
    for start, end in pairwise(edges):
        value = int(values_L[start])
        runs.append((start, end, value))
    return runs
