"""Removes the words of raw captions that repeat the previous caption."""

from collections.abc import Callable
from dataclasses import dataclass

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, from_rows, iter_rows

SLACK_S = 0.001  # a caption may end this much before its start, because of rounding


@dataclass
class Caption:
    """One caption."""

    start: float  # seconds
    end: float  # seconds
    text: str


def deduplicate(captions: CaptionList, draw: Callable[[], float]) -> CaptionList:
    """Returns the captions of one video without the words that repeat the previous caption.

    Each caption is compared with the last one that was kept:

    - If the last text ends with the new text, the new caption is dropped.
    - If the new text begins with the last text, the new caption replaces the last one.
    - Otherwise, the overlap is the *shortest* beginning of the new text that the last text ends
      with. It may be a single letter: "the pan" and "now" overlap by an n. One of the two captions
      keeps the overlap, each with probability 1/2, and their times meet there.

    The published text of VideoCLIP was made this way.

    Args:
        captions: ordered by start. Texts that are blank or not strings are left out.
        draw: returns uniform numbers from [0, 1). It is called once per overlap.
    Raises:
        DataError: a caption ends before it starts.
    """
    kept: list[Caption] = []
    for start, end, text in iter_rows(captions):
        if not isinstance(text, str):
            continue
        text = text.replace("\n", " ").strip()
        if not text:
            continue
        _add(kept, Caption(start, end, text), draw)
        last = kept[-1]
        if last.end + SLACK_S < last.start:
            raise DataError(
                f"captions must not end before they start, but {last.text!r} starts at "
                f"{last.start:g} s and ends at {last.end:g} s. Clean the times first."
            )
    return from_rows((caption.start, caption.end, caption.text) for caption in kept)


def _add(kept: list[Caption], new: Caption, draw: Callable[[], float]) -> None:
    """Adds the next caption of a video to the kept ones, without the words that both share."""
    if not kept:
        kept.append(new)
        return
    last = kept[-1]
    if last.text.endswith(new.text):
        last.end = max(last.end, new.end)
        return
    if new.text.startswith(last.text):
        start = min(last.start, new.start)
        end = max(last.end, new.end)
        kept[-1] = Caption(start, end, new.text)
        return
    overlap = _overlap(last.text, new.text)
    if overlap == 0:
        kept.append(new)
    elif draw() > 0.5:
        # The last caption keeps the overlap, and the new one begins when it ends.
        last.end = max(last.end, new.start)
        rest = new.text[overlap:].strip()
        if rest:
            end = max(last.end, new.end)
            kept.append(Caption(last.end, end, rest))
    else:
        # The new caption keeps the overlap, and the last one ends when it begins.
        rest = last.text[:-overlap].strip()
        if rest:
            last.end = min(last.end, new.start)
            last.text = rest
        else:
            kept.pop()
        kept.append(new)


def _overlap(before: str, text: str) -> int:
    """Returns the smallest k > 0 such that `before` ends with `text[:k]`; 0 if there is none."""
    # An overlap begins at a position where `before` has the first character of `text`. The last
    # such position is tried first, because it gives the shortest overlap.
    first = max(0, len(before) - len(text))
    letter = text[0]
    position = before.rfind(letter, first)
    while position >= 0:
        if text.startswith(before[position:]):
            return len(before) - position
        position = before.rfind(letter, first, position)
    return 0
