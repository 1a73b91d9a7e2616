"""Seconds and feature rows of another rate, against values written by hand."""

import numpy as np
import pytest

from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import average_seconds, num_seconds


def test_one_row_a_second_is_unchanged():
    values = np.random.default_rng(0).random((7, 3), dtype=np.float32)
    assert average_seconds(values, 1.0) is values
    assert num_seconds(7, 1.0) == 7


@pytest.mark.parametrize(
    ("fps", "num_rows", "expected"),
    [
        (2, 5, [0.5, 2.5, 4]),
        (0.5, 2, [0, 0, 1, 1]),
        # Seconds 0, 1 and 2 touch the rows 0 to 1, 1 to 2, and 3 to 4.
        (1.5, 5, [0.5, 1.5, 3.5, 4]),
        (0.1, 1, [0] * 10),
    ],
)
def test_rows_of_a_second_are_averaged(fps, num_rows, expected):
    rows = np.arange(num_rows, dtype=np.float32)[:, None]
    seconds = average_seconds(rows, fps)
    assert seconds.dtype == np.float32
    assert seconds[:, 0].tolist() == expected
    assert num_seconds(num_rows, fps) == len(expected)


@pytest.mark.parametrize("fps", [0.3, 0.7, 1.1, 1.5625, 3.3, 29.97])
def test_every_second_has_a_value_for_every_length_and_rate(fps):
    for num_rows in range(1, 200):
        rows = np.ones((num_rows, 1), dtype=np.float32)
        seconds = average_seconds(rows, fps)
        assert len(seconds) == num_seconds(num_rows, fps)
        assert (seconds == 1).all()


def test_the_rows_that_a_span_touches():
    assert rows_between(1.2, 3.7, 1) == (1, 4)
    assert rows_between(1.2, 3.7, 2) == (2, 8)
    assert rows_between(1.2, 3.7, 0.5) == (0, 2)
