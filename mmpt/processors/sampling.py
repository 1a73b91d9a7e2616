"""Windows over captions and over seconds, as pure functions of lengths and a generator.

Number and order of the draws are the release's, so that a given generator state replays its items exactly. Two of its
habits are kept on purpose: a text growth step draws twice although the second number matters only when `keep_prob` is
below 1, and a video window may end exactly at its centre second and then not contain it. What makes up most of an item
is drawn in fewer calls from the same words of the generator: integers, and the steps of a window away from the edges.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mmpt.batch import Captions

MAX_TEXT_WINDOW_S = 256.0  # a text window stops growing at this duration
DRAW_BITS = 64  # that `random()` takes of the generator: two words of 32
HALF_BITS = [sum(1 << (DRAW_BITS * step + 31) for step in range(steps)) for steps in range(65)]
"""Of `steps` draws, the bits that say whether they are at least a half: the top bit of each one's first word."""


def draw_int(rng: random.Random, low: int, high: int) -> int:
    """Return what `rng.randint(low, high)` returns, from the same words, with fewer calls."""
    span = high - low + 1
    assert span > 0, f"no integer from {low} to {high}"
    getrandbits, bits = rng.getrandbits, span.bit_length()
    value = getrandbits(bits)
    while value >= span:
        value = getrandbits(bits)
    return low + value


def text_span(
    sizes: Sequence[int],
    starts: Sequence[float],
    ends: Sequence[float],
    centre: int,
    target: int,
    rng: random.Random,
    keep_prob: float = 1.0,
) -> tuple[int, int, list[int]]:
    """Grow a window of captions from `centre`, left or right at random, until it holds `target` word pieces.

    The caption that reaches the target is kept whole, so the window may hold more.

    Args:
        sizes: word pieces of each caption.
        starts, ends: times of each caption, in seconds.
        centre: caption to begin with, 0 <= centre < len(sizes).
        target: word pieces wanted.
        keep_prob: below 1, a caption on the way is left out now and then.
    Returns:
        First caption, last caption + 1, and those between them that are left out.
    """
    num_captions = len(sizes)
    assert 0 <= centre < num_captions, f"centre {centre} of {num_captions} captions"
    draw = rng.random
    left, right, num_pieces = centre, centre + 1, sizes[centre]
    left_out: list[int] = []
    while (
        num_pieces < target
        and (left > 0 or right < num_captions)
        and ends[right - 1] - starts[left] < MAX_TEXT_WINDOW_S
    ):
        to_right, skip = draw() > 0.5, draw() > keep_prob
        if right < num_captions and (to_right or left == 0):
            if skip and right + 1 < num_captions:
                left_out.append(right)
                right += 1
            num_pieces += sizes[right]
            right += 1
        else:
            left -= 1
            if skip and left > 0:
                left_out.append(left)
                left -= 1
            num_pieces += sizes[left]
    return left, right, left_out


def video_window(video_len: int, max_len: int, centre: int, rng: random.Random) -> tuple[int, int]:
    """Grow a window of seconds from an empty one at `centre`, one second at a time, left or right at random.

    A number is drawn only while both directions are open.

    Args:
        video_len: seconds in the video, at least 1.
        max_len: seconds wanted.
        centre: 0 <= centre < video_len; the window may end at it.
    Returns:
        (start, end), half-open, of length min(max_len, video_len).
    """
    assert 0 <= centre < video_len, f"centre {centre} of a video of {video_len} s"
    if max_len <= centre <= video_len - max_len and max_len < len(HALF_BITS):  # neither edge is reached: all steps draw
        # Differs from the loop where a draw is exactly one half, once in 2**53.
        num_right = (rng.getrandbits(DRAW_BITS * max_len) & HALF_BITS[max_len]).bit_count()
        return centre - max_len + num_right, centre + num_right
    draw = rng.random
    start = end = centre
    for _ in range(min(max_len, video_len)):
        if start <= 0:
            end += 1
        elif end >= video_len or draw() <= 0.5:
            start -= 1
        else:
            end += 1
    return start, end


class TextClipSamplingProcessor:
    """`text_span` on captions, with the default target length and `keep_prob` bound."""

    def __init__(self, max_text_len: int, keep_prob: float = 1.0):
        self.max_text_len = max_text_len
        self.keep_prob = keep_prob

    def __call__(
        self, captions: Captions, rng: random.Random, centre: int | None = None, target: int | None = None
    ) -> list[int]:
        """Return caption indices around `centre` (drawn first when None)."""
        sizes = [len(ids) for ids in captions["cap"]]
        if centre is None:
            centre = rng.randint(0, len(sizes) - 1)
        target = self.max_text_len if target is None else target
        first, last, left_out = text_span(
            sizes, captions["start"], captions["end"], centre, target, rng, self.keep_prob
        )
        return [index for index in range(first, last) if index not in left_out]


class VideoClipSamplingProcessor:
    """`video_window` under the name it is known by."""

    def __call__(self, video_len: int, max_len: int, centre: int, rng: random.Random) -> tuple[int, int]:
        """Return (start, end) in seconds, half-open."""
        return video_window(video_len, max_len, centre, rng)
