"""The windows of videos against `window_spans`, and suppression against a naive version."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmpt.inference.moments import Moment, WindowTable, overlap, suppress_overlaps
from mmpt.processors.window_aligner import window_spans


@given(
    seconds=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    window=st.integers(1, 20),
    data=st.data(),
)
def test_windows_are_numbered_in_the_order_of_window_spans(seconds, window, data):
    stride = data.draw(st.integers(1, window))
    expected = []
    for video, length in enumerate(seconds):
        for start, end in window_spans(length, stride, window):
            expected.append(Moment(f"v{video}", start, end, float(len(expected))))
    names = [f"v{video}" for video in range(len(seconds))]
    table = WindowTable(names, seconds, window, stride)
    assert len(table) == len(expected)
    numbers = data.draw(st.permutations(range(len(table))))
    moments = table.moments(np.array(numbers), np.array(numbers, dtype=np.float64))
    assert list(moments) == [expected[number] for number in numbers]


def naive_suppression(moments, top, max_overlap):
    """Removes the best moment and everything that overlaps it, until nothing is left."""
    left = list(moments)
    taken = []
    while left and len(taken) < top:
        best = left.pop(0)
        taken.append(best)
        kept = []
        for moment in left:
            seconds = set(range(moment.start, moment.end))
            best_seconds = set(range(best.start, best.end))
            ratio = len(seconds & best_seconds) / len(seconds | best_seconds)
            if moment.video != best.video or ratio <= max_overlap:
                kept.append(moment)
        left = kept
    return taken


@st.composite
def moments(draw):
    """A list of moments of three videos, best first."""
    found = []
    for rank in range(draw(st.integers(0, 25))):
        start = draw(st.integers(0, 30))
        end = start + draw(st.integers(1, 12))
        found.append(Moment(draw(st.sampled_from("abc")), start, end, -float(rank)))
    return found


@given(
    moments=moments(),
    top=st.integers(1, 30),
    max_overlap=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
def test_suppression_equals_the_naive_version(moments, top, max_overlap):
    expected = naive_suppression(moments, top, max_overlap)
    assert suppress_overlaps(moments, top, max_overlap) == expected


def test_touching_moments_do_not_overlap():
    first, second = Moment("a", 0, 8, 2.0), Moment("a", 8, 16, 1.0)
    assert overlap(first, second) == 0
    assert suppress_overlaps([first, second], 5) == [first, second]
