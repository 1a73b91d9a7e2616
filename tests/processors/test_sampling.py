"""Windows and draws against recorded ones of the release, and against the same steps written
out.
"""

import random

import pytest

from mmpt.processors.sampling import text_span, video_window

SIZES = [2 + (5 * i) % 7 for i in range(12)]
STARTS = [3 * i + 0.25 for i in range(12)]
ENDS = [3 * i + 2.75 for i in range(12)]


def test_recorded_text_windows():
    rng = random.Random(0)
    cases = [(5, 8), (0, 12), (11, 20), (6, 32)]
    windows = [text_span(SIZES, STARTS, ENDS, *case, rng) for case in cases]
    assert windows == [(5, 7), (0, 3), (8, 12), (4, 10)]
    assert rng.random() == 0.8988382879679935


def test_recorded_video_windows():
    rng = random.Random(0)
    cases = [(40, 5, 20), (40, 16, 2), (40, 16, 39), (4, 16, 1)]
    assert [video_window(*case, rng) for case in cases] == [(18, 23), (0, 16), (24, 40), (0, 4)]
    assert rng.random() == 0.7558042041572239


def caption_by_caption(sizes, starts, ends, centre, target, rng):
    """The window as the specification tells it."""
    a, b, window = centre, centre + 1, [centre]
    length, duration = sizes[centre], max(0, ends[centre] - starts[centre])
    while (a > 0 or b < len(sizes)) and length < target and duration < 256:
        r1 = rng.random()
        rng.random()
        if (r1 > 0.5 and b < len(sizes)) or a == 0:
            window.append(b)
            length += sizes[b]
            b += 1
        else:
            a -= 1
            window.insert(0, a)
            length += sizes[a]
        duration = max(0, ends[window[-1]] - starts[window[0]])
    return window


@pytest.mark.parametrize("seed", range(50))
def test_a_text_span_grows_caption_by_caption(seed):
    draws, ours, slow = random.Random(seed), random.Random(seed), random.Random(seed)
    sizes = [draws.randint(0, 9) for _ in range(draws.randint(1, 15))]
    times = sorted(draws.uniform(0, 400) for _ in sizes)
    ends = [time + draws.uniform(-1, 30) for time in times]
    for _ in range(20):
        centre, target = draws.randrange(len(sizes)), draws.randint(1, 40)
        first, last = text_span(sizes, times, ends, centre, target, ours)
        assert list(range(first, last)) == caption_by_caption(
            sizes, times, ends, centre, target, slow
        )
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
