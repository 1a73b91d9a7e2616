"""Windows over captions and over feature rows, as pure functions of lengths and a random generator.

The number and the order of the draws are as in the released code, so the same state of the
generator gives the same items. Two properties of that code are kept on purpose. `text_span` draws
twice per step, although the second number only matters if `keep_prob` is below 1. A window of
`video_window` may end just before its centre, and then does not contain it.
"""

import math
import random
from collections.abc import Sequence

from mmpt.batch import Captions

Span = tuple[int, int]
"""Start and end, exclusive, of a window in feature rows (seconds, if there is one a second)."""
MAX_TEXT_WINDOW_S = 256.0  # a text window stops growing at this duration


def rows_between(start_s: float, end_s: float, fps: float) -> Span:
    """Returns the feature rows that a time from `start_s` to `end_s` touches.

    Args:
        start_s, end_s: times in seconds.
        fps: feature rows per second.
    """
    return math.floor(start_s * fps), math.ceil(end_s * fps)


def text_span(
    sizes: Sequence[int],
    starts: Sequence[float],
    ends: Sequence[float],
    centre: int,
    target: int,
    rng: random.Random,
    keep_prob: float = 1.0,
) -> tuple[int, int, list[int]]:
    """Grows a window of captions from `centre` until it holds `target` word pieces.

    Each step adds one caption, on the left or on the right at random. The caption that reaches the
    target is added whole, so the window may hold more word pieces. The window also stops growing
    when it covers all captions, or lasts `MAX_TEXT_WINDOW_S`.

    Args:
        sizes: word pieces of each caption.
        starts, ends: times of each caption, in seconds.
        centre: caption to begin with, 0 <= centre < len(sizes).
        target: word pieces wanted.
        rng: each step draws two numbers from it.
        keep_prob: below 1, each step skips a caption with a probability of 1 - `keep_prob`.
    Returns:
        The first caption, the last caption + 1, and the captions between them that are skipped.
    """
    num_captions = len(sizes)
    assert 0 <= centre < num_captions, f"centre {centre} of {num_captions} captions"
    # The window is [left, right). Its first caption is the centre.
    left = centre
    right = centre + 1
    num_pieces = sizes[centre]
    skipped: list[int] = []
    while num_pieces < target:
        covers_all = left == 0 and right == num_captions
        duration_s = ends[right - 1] - starts[left]
        if covers_all or duration_s >= MAX_TEXT_WINDOW_S:
            break
        to_right = rng.random() > 0.5
        skip = rng.random() > keep_prob
        # At an end of the list, the window grows in the other direction.
        if right < num_captions and (to_right or left == 0):
            if skip and right + 1 < num_captions:  # the last caption is never skipped
                skipped.append(right)
                right += 1
            num_pieces += sizes[right]
            right += 1
        else:
            left -= 1
            if skip and left > 0:  # the first caption is never skipped
                skipped.append(left)
                left -= 1
            num_pieces += sizes[left]
    return left, right, skipped


def video_window(video_len: int, max_len: int, centre: int, rng: random.Random) -> Span:
    """Grows a window of feature rows from an empty one at `centre` until it has `max_len` rows.

    Each step adds one row, on the left or on the right at random. At an end of the video, the
    window grows in the other direction, and no number is drawn.

    Args:
        video_len: rows of the video, at least 1.
        max_len: rows wanted.
        centre: 0 <= centre < video_len. The window may end just before it.
    Returns:
        A window of length min(max_len, video_len).
    """
    assert 0 <= centre < video_len, f"centre {centre} of a video of {video_len} rows"
    start = end = centre
    length = min(max_len, video_len)
    for _ in range(length):
        if start == 0:
            end += 1
        elif end == video_len or rng.random() <= 0.5:
            start -= 1
        else:
            end += 1
    return start, end


class TextClipSamplingProcessor:
    """Draws caption windows with a default target length and `keep_prob`; see `text_span`."""

    def __init__(self, max_text_len: int, keep_prob: float = 1.0):
        self.max_text_len = max_text_len
        self.keep_prob = keep_prob

    def __call__(
        self,
        captions: Captions,
        rng: random.Random,
        centre: int | None = None,
        target: int | None = None,
    ) -> list[int]:
        """Returns the indices of a window of captions.

        Args:
            centre: caption to begin with; None draws it.
            target: word pieces wanted; None means `max_text_len`.
        """
        sizes = [len(ids) for ids in captions["cap"]]
        starts = captions["start"]
        ends = captions["end"]
        num_captions = len(sizes)
        if centre is None:
            centre = rng.randint(0, num_captions - 1)
        if target is None:
            target = self.max_text_len
        first, last, skipped = text_span(
            sizes, starts, ends, centre, target, rng, self.keep_prob
        )
        return [index for index in range(first, last) if index not in skipped]


class VideoClipSamplingProcessor:
    """Draws windows of feature rows; see `video_window`."""

    def __call__(
        self, video_len: int, max_len: int, centre: int, rng: random.Random
    ) -> Span:
        """Returns (start, end) in rows, half-open."""
        return video_window(video_len, max_len, centre, rng)
