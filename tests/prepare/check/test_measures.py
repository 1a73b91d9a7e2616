"""Tests of the measures of captions and feature rows against simple versions."""

import numpy as np

from mmpt.prepare.check.measures import caption_seconds, measure_rows


def naive_seconds(
    starts: np.ndarray, ends: np.ndarray, length: float
) -> tuple[float, float]:
    """Computes the sum and the union of captions on a grid with a step of 0.01 s."""
    num_captions = np.zeros(round(length * 100), dtype=int)  # at each point of the grid
    for start, end in zip(starts, ends, strict=True):
        first = max(0, round(start * 100))
        last = max(0, round(end * 100))
        num_captions[first:last] += 1
    num_covered = np.count_nonzero(num_captions)
    return num_captions.sum() / 100, num_covered / 100


def test_caption_seconds_equal_a_count_on_a_grid():
    rng = np.random.default_rng(1)
    seconds = np.array([30, 0, 12, 50, 7])
    counts = [12, 3, 0, 40, 5]
    owners = np.repeat(np.arange(5), counts)
    starts = np.round(rng.uniform(-5, 55, len(owners)), 2)
    ends = np.round(starts + rng.uniform(-1, 8, len(owners)), 2)
    spoken, covered = caption_seconds(starts, ends, owners, seconds)
    valid_ends = np.maximum(ends, starts)
    for video in range(5):
        mine = owners == video
        wanted = naive_seconds(starts[mine], valid_ends[mine], seconds[video])
        # Measured 2e-13.
        np.testing.assert_allclose((spoken[video], covered[video]), wanted, atol=1e-9)


def test_rows_are_compared_across_blocks():
    rows = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float16)
    rows[:, 2] = 7
    rows[6] = rows[5]  # the last row of a block and the first of the next
    rows[8] = np.nan
    rows[8:, 2] = 7
    found = measure_rows(rows, block_rows=3)
    assert np.flatnonzero(found.is_still).tolist() == [6]
    assert found.is_constant.tolist() == [False, False, True, False]
    norms = []
    directions = []
    for row in rows.astype(float):
        norm = np.sqrt(np.sum(row**2))
        norms.append(norm)
        if norm > 0:  # not NaN
            directions.append(row / norm)
    np.testing.assert_allclose(found.norms, norms, 1e-6)  # measured 5e-8
    # Measured 7e-8.
    np.testing.assert_allclose(found.direction, np.sum(directions, axis=0), 1e-6)


def test_zero_and_damaged_rows_have_no_direction():
    rows = np.array(
        [[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [0, 2]], dtype=np.float16
    )
    found = measure_rows(rows)
    assert found.norms[[0, 1, 4]].tolist() == [5, 0, 2]
    np.testing.assert_allclose(found.direction, [0.6, 1.8], 1e-6)  # measured 4e-8
