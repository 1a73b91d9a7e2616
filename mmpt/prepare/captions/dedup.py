"""De-duplicates raw captions, whose neighbours repeat each other's words; `mmpt.cli.dedup` is the command.

One generator serves all videos in file order, as in the original, so the result depends on the seed and the file only.
Videos stream through: what is held in memory is one video and a megabyte of text (a pickle has to be read whole).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList

SLACK_S = 0.001  # a caption may start this much behind the end of what it replaces


def deduplicate(captions: CaptionList, draw: Callable[[], float]) -> CaptionList:
    """Return the captions of one video without the words that they share with the one before.

    An overlap is the *shortest* head of a text that the text before ends with, a single letter included: "the pan" and
    "now" lose an n. The published VideoCLIP text was made this way. Half of the overlaps stay with the text before.

    Args:
        captions: ordered by start, none ends before it starts; texts that are no string or blank are left out.
        draw: gives uniform numbers of [0, 1); called once per overlap.
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
        """Take the next caption in."""
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
                f"captions must not end before they start, but {self.texts[-1]!r} starts at {self.starts[-1]:g} s and "
                f"ends at {self.ends[-1]:g} s. Clean the times first."
            )

    def _push(self, start: float, end: float, text: str) -> None:
        self.starts.append(start)
        self.ends.append(end)
        self.texts.append(text)

    def _leave_with_previous(self, start: float, end: float, rest: str) -> None:
        self.ends[-1] = max(self.ends[-1], start)
        if rest:
            start = max(self.ends[-1], start)
            self._push(start, max(end, start), rest)

    def _move_to_current(self, start: float, end: float, text: str, rest: str) -> None:
        if rest:
            self.ends[-1] = min(self.ends[-1], start)
            self.texts[-1] = rest
        else:
            for column in (self.starts, self.ends, self.texts):
                column.pop()
        self._push(start, end, text)


def _overlap(before: str, text: str) -> int:
    """Return the smallest k > 0 such that `before` ends with `text[:k]`; 0 when there is none."""
    first = max(0, len(before) - len(text))
    place = len(before)
    while (place := before.rfind(text[0], first, place)) >= 0:
        if text.startswith(before[place:]):
            return len(before) - place
    return 0


class CaptionDedupProcessor:
    """De-duplicates video after video with one generator."""

    def __init__(self, seed: int = 0):
        self._draw = random.Random(seed).random

    def __call__(self, captions: CaptionList) -> CaptionList:
        """Return the captions of the next video, de-duplicated; errors as in `deduplicate`."""
        return deduplicate(captions, self._draw)
