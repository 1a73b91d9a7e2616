"""Windows and draws against recorded ones of the release, and against the same steps written
out.
"""

import random

import pytest

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


def test_recorded_text_windows():
    rng = random.Random(0)
    sample = TextClipSamplingProcessor(max_text_len=32)
    cases = [(5, 8), (0, 12), (11, 20), (6, None)]
    windows = [sample(CAPTIONS, rng, *case) for case in cases]
    assert windows == [[5, 6], [0, 1, 2], [8, 9, 10, 11], [4, 5, 6, 7, 8, 9]]
    assert rng.random() == 0.8988382879679935


def test_recorded_video_windows():
    rng = random.Random(0)
    sample = VideoClipSamplingProcessor()
    cases = [(40, 5, 20), (40, 16, 2), (40, 16, 39), (4, 16, 1)]
    assert [sample(*case, rng) for case in cases] == [(18, 23), (0, 16), (24, 40), (0, 4)]
    assert rng.random() == 0.7558042041572239


def caption_by_caption(sizes, starts, ends, centre, target, rng, keep_prob):
    """The window as the specification tells it."""
    a, b, window = centre, centre + 1, [centre]
    length, duration = sizes[centre], max(0, ends[centre] - starts[centre])
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


@pytest.mark.parametrize("keep_prob", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(50))
def test_a_text_span_grows_caption_by_caption(seed, keep_prob):
    draws, ours, slow = random.Random(seed), random.Random(seed), random.Random(seed)
    sizes = [draws.randint(0, 9) for _ in range(draws.randint(1, 15))]
    times = sorted(draws.uniform(0, 400) for _ in sizes)
    ends = [time + draws.uniform(-1, 30) for time in times]
    for _ in range(20):
        centre, target = draws.randrange(len(sizes)), draws.randint(1, 40)
        first, last, left_out = text_span(sizes, times, ends, centre, target, ours, keep_prob)
        window = caption_by_caption(sizes, times, ends, centre, target, slow, keep_prob)
        assert [index for index in range(first, last) if index not in left_out] == window
        assert set(left_out) < set(range(first, last))
        assert keep_prob < 1 or not left_out
    assert ours.random() == slow.random()


def second_by_second(video_len, max_len, centre, rng):
    """The window as the specification tells it."""
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


@pytest.mark.parametrize("seed", range(50))
def test_a_video_window_takes_the_draws_of_its_seconds_one_by_one(seed):
    draws, ours, slow = random.Random(seed), random.Random(seed), random.Random(seed)
    for _ in range(100):
        video_len, max_len = draws.randint(1, 200), draws.randint(0, 70)
        centre = draws.randrange(video_len)
        case = (video_len, max_len, centre)
        assert video_window(*case, ours) == second_by_second(*case, slow)
    assert ours.random() == slow.random()
