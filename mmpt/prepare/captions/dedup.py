"""De-duplicates raw captions, each of which repeats words of the caption before it.

`mmpt.cli.dedup` is the command. One random generator serves all videos in file order, as in the
released code, so the result depends on the seed and the file only.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList

SLACK_S = 0.001  # a caption may start this much after its end


def deduplicate(captions: CaptionList, draw: Callable[[], float]) -> CaptionList:
    """Returns the captions of one video without the words that they share with their predecessor.

    A caption that its predecessor ends with is dropped; one that begins with its predecessor
    replaces it. Otherwise, the overlap is the *shortest* beginning of the text that the text before
    it ends with. It may be a single letter: "the pan" and "now" share an n. The published text of
    VideoCLIP was made this way. One of the two captions keeps the overlap, each with probability
    1/2, and their times meet where the overlap was.

    Args:
        captions: ordered by start; none ends before it starts. Texts that are blank or not strings
            are left out.
        draw: returns uniform numbers from [0, 1). It is called once per overlap.
    Raises:
        DataError: a caption ends before it starts.
    """
    kept = _Kept()
    for start, end, text in zip(captions["start"], captions["end"], captions["text"], strict=True):
        text = text.replace("\n", " ").strip() if isinstance(text, str) else ""
        if text:
            kept.add(start, end, text, draw)
    return {"start": kept.starts, "end": kept.ends, "text": kept.texts}


class _Kept:
    """The captions of one video so far."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.texts: list[str] = []

    def add(self, start: float, end: float, text: str, draw: Callable[[], float]) -> None:
        """Adds the next caption, whose text is not blank."""
        before = self.texts[-1] if self.texts else ""
        if not before:
            self._push(start, end, text)
        elif before.endswith(text):
            self.ends[-1] = max(self.ends[-1], end)
        elif text.startswith(before):
            self.texts[-1] = text
            self.starts[-1] = min(self.starts[-1], start)
            self.ends[-1] = max(self.ends[-1], end)
        elif (overlap := _overlap(before, text)) == 0:
            self._push(start, end, text)
        elif draw() > 0.5:
            self._leave_with_previous(start, end, text[overlap:].strip())
        else:
            self._move_to_current(start, end, text, before[: len(before) - overlap].strip())
        assert self.texts[-1]
        if self.ends[-1] + SLACK_S < self.starts[-1]:
            raise DataError(
                f"captions must not end before they start, but {self.texts[-1]!r} starts at "
                f"{self.starts[-1]:g} s and ends at {self.ends[-1]:g} s. Clean the times first."
            )

    def _push(self, start: float, end: float, text: str) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.texts.append(text)

    def _leave_with_previous(self, start: float, end: float, rest: str) -> None:
        """Adds `rest`, what is left of the next caption when the previous one keeps the overlap."""
        self.ends[-1] = max(self.ends[-1], start)
        if rest:
            start = max(self.ends[-1], start)
            self._push(start, max(end, start), rest)

    def _move_to_current(self, start: float, end: float, text: str, rest: str) -> None:
        """Adds `text`, the next caption, which keeps the overlap; `rest` is left of the
        previous.
        """
        if rest:
            self.ends[-1] = min(self.ends[-1], start)
            self.texts[-1] = rest
        else:
            for column in (self.starts, self.ends, self.texts):
                column.pop()
        self._push(start, end, text)


def _overlap(before: str, text: str) -> int:
    """Returns the smallest k > 0 such that `before` ends with `text[:k]`; 0 if there is none."""
    # An overlap begins where `before` has the first character of `text`; the last such place is
    # tried first, because it makes the shortest overlap.
    first = max(0, len(before) - len(text))
    place = len(before)
    while (place := before.rfind(text[0], first, place)) >= 0:
        if text.startswith(before[place:]):
            return len(before) - place
    return 0


class CaptionDedupProcessor:
    """A callable that de-duplicates one video after another with one random generator."""

    def __init__(self, seed: int = 0):
        """Seeds the generator."""
        self._draw = random.Random(seed).random

    def __call__(self, captions: CaptionList) -> CaptionList:
        """Returns the captions of the next video, de-duplicated. Raises what `deduplicate` does."""
        return deduplicate(captions, self._draw)
