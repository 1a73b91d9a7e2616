"""Windows and draws against recorded ones of the release, and against plain loops."""

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mmpt.batch import Captions
from mmpt.processors.sampling import (
    TextClipSamplingProcessor,
    VideoClipSamplingProcessor,
    text_span,
    video_window,
)

SIZES = [2 + (5 * i) % 7 for i in range(12)]
STARTS = [3 * i + 0.25 for i in range(12)]
ENDS = [3 * i + 2.75 for i in range(12)]
CAPTIONS = Captions(start=STARTS, end=ENDS, cap=[[1000] * size for size in SIZES])


def test_text_windows_equal_the_recorded_ones():
    rng = random.Random(0)
    sample = TextClipSamplingProcessor(max_text_len=32)
    assert sample(CAPTIONS, rng, 5, 8) == [5, 6]
    assert sample(CAPTIONS, rng, 0, 12) == [0, 1, 2]
    assert sample(CAPTIONS, rng, 11, 20) == [8, 9, 10, 11]
    assert sample(CAPTIONS, rng, 6) == [4, 5, 6, 7, 8, 9]
    assert rng.random() == 0.8988382879679935


def test_video_windows_equal_the_recorded_ones():
    rng = random.Random(0)
    sample = VideoClipSamplingProcessor()
    assert sample(40, 5, 20, rng) == (18, 23)
    assert sample(40, 16, 2, rng) == (0, 16)
    assert sample(40, 16, 39, rng) == (24, 40)
    assert sample(4, 16, 1, rng) == (0, 4)
    assert rng.random() == 0.7558042041572239


def caption_by_caption(sizes, starts, ends, centre, target, rng, keep_prob):
    """Returns the window as described in the specification."""
    a = centre
    b = centre + 1
    window = [centre]
    length = sizes[centre]
    duration = max(0, ends[centre] - starts[centre])
    while (a > 0 or b < len(sizes)) and length < target and duration < 256:
        r1 = rng.random()
        if (r1 > 0.5 and b < len(sizes)) or a == 0:
            if rng.random() > keep_prob and b + 1 < len(sizes):
                b += 1
            window.append(b)
            length += sizes[b]
            b += 1
        else:
            if rng.random() > keep_prob and a - 1 > 0:
                a -= 1
            a -= 1
            window.insert(0, a)
            length += sizes[a]
        duration = max(0, ends[window[-1]] - starts[window[0]])
    return window


@st.composite
def caption_lists(draw: st.DrawFn) -> tuple[list[int], list[float], list[float]]:
    """Returns sizes, starts and ends of up to 15 captions. Starts are sorted, ends are random."""
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=15))
    same_number = {"min_size": len(sizes), "max_size": len(sizes)}
    starts = sorted(draw(st.lists(st.floats(0, 400), **same_number)))
    durations = draw(st.lists(st.floats(-1, 30), **same_number))
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    return sizes, starts, ends


@given(
    caption_lists(),
    st.data(),
    st.integers(1, 40),
    st.sampled_from([1.0, 0.5]),
    st.integers(),
)
def test_a_text_span_contains_its_centre_and_grows_caption_by_caption(
    captions: tuple[list[int], list[float], list[float]],
    data: Any,
    target: int,
    keep_prob: float,
    seed: int,
) -> None:
    sizes = captions[0]
    centre = data.draw(st.integers(0, len(sizes) - 1))
    ours = random.Random(seed)
    slow = random.Random(seed)
    first, last, left_out = text_span(*captions, centre, target, ours, keep_prob)
    assert 0 <= first <= centre < last <= len(sizes)
    covered = set(range(first, last))
    assert set(left_out) <= covered - {centre}
    assert keep_prob < 1 or not left_out
    window = sorted(covered.difference(left_out))
    # Without the caption that reached the target, there were fewer word pieces.
    num_pieces = sum(sizes[index] for index in window)
    assert len(window) == 1 or num_pieces < target + max(sizes)
    assert window == caption_by_caption(*captions, centre, target, slow, keep_prob)
    assert ours.random() == slow.random()


def second_by_second(video_len, max_len, centre, rng):
    """Returns the window as described in the specification."""
    start = end = centre
    steps = 0
    while (start > 0 or end < video_len) and steps < max_len:
        if start <= 0:
            end += 1
        elif end >= video_len:
            start -= 1
        elif rng.random() > 0.5:
            end += 1
        else:
            start -= 1
        steps += 1
    return start, end


@given(st.integers(1, 200), st.integers(0, 70), st.data(), st.integers())
def test_a_video_window_contains_its_centre_and_has_the_wanted_length(
    video_len: int, max_len: int, data: Any, seed: int
) -> None:
    centre = data.draw(st.integers(0, video_len - 1))
    ours = random.Random(seed)
    slow = random.Random(seed)
    start, end = video_window(video_len, max_len, centre, ours)
    assert 0 <= start <= centre <= end <= video_len
    assert end - start == min(max_len, video_len)
    assert (start, end) == second_by_second(video_len, max_len, centre, slow)
    assert ours.random() == slow.random(), "the same number of draws"
