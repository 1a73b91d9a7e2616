"""One subtitle: its times, and the words of its lines without markup."""

import html
import re
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import NamedTuple

from mmpt.prepare.captions.timing import TIME, Timing, to_seconds

HOLD_S = 0.05
"""Longest duration of a hold cue, in seconds. A hold cue is too short to read, and shows old text
only (see scrolling.py)."""
WORD_S = 0.07
"""Shortest time in which a word can be said, in seconds. Fast speech has 5 words per second."""
# A word time says when the word after it is spoken. YouTube writes `<00:00:01.000>`.
WORD_TIME = re.compile(rf"<({TIME})>")
# Only known tags are markup, because `x < 5 and y > 3` is text. `{\an8}` is markup of SubRip.
NAMES = "[bcisu]|ruby|rt|p|em|strong|strike|small|big"
MARKUP = re.compile(
    rf"</?(?:{NAMES})(?:\.[^<>\s]*)? ?/?>|</?(?:v|lang|font|span)\b[^<>]*>"
    rf"|{WORD_TIME.pattern}|\{{\\[^{{}}]*\}}",
    re.IGNORECASE,
)
LINE_BREAK = re.compile(r"<br\s*/?>|\\[Nh]")
HIGHLIGHT_END = re.compile(r"</(?:[bcisu]|font)>", re.IGNORECASE)

Words = tuple[str, ...]


class Cue(NamedTuple):
    """One subtitle, with all of its text or with the new part only."""

    start: float  # seconds
    end: float  # seconds
    lines: tuple[Words, ...]  # a blank line has no words
    # Number of words before the first one that has a word time.
    new_from: int | None = None
    # Number of words up to the last highlighted one; 0 if there is none.
    highlight: int = 0

    @property
    def words(self) -> Words:
        """The words of all lines."""
        return tuple(chain.from_iterable(self.lines))

    @property
    def line_ends(self) -> list[int]:
        """The number of words up to the end of every line."""
        return list(accumulate(map(len, self.lines)))

    @property
    def is_hold(self) -> bool:
        """Whether the cue is too short to read."""
        duration_s = round(self.end - self.start, 3)
        return duration_s <= HOLD_S

    @property
    def can_be_said(self) -> bool:
        """Whether the cue is long enough to say its last line."""
        if self.is_hold:
            return False
        num_words = len(self.lines[-1])
        return self.end - self.start >= WORD_S * num_words


def make_cue(timing: Timing, lines: Sequence[str]) -> Cue:
    """Returns the cue of a timing line and its text lines."""
    text = "\n".join(lines)
    words = tuple(_words(line) for line in lines)
    new_from = _num_before_word_time(text, timing.start)
    highlight = _num_highlighted(text)
    return Cue(timing.start, timing.end, words, new_from, highlight)


def _num_before_word_time(text: str, start: float) -> int | None:
    """Returns the number of words before the first new one; None if the text has no word times.

    Args:
        start: start of the cue in seconds. Words with an earlier time are old.
    """
    for match in WORD_TIME.finditer(text):
        if to_seconds(match[1]) < start:
            continue
        before = text[: match.start()]
        num_words = len(_words(before))
        # The first word of a new line usually has no time. The word after this time is then the
        # second new one.
        _, _, line = before.rpartition("\n")
        if _words(line):
            num_words -= 1
        return num_words
    return None


def _num_highlighted(text: str) -> int:
    """Returns the number of words up to the end of the last highlighted word, or 0."""
    # Files with word times have no highlights.
    if WORD_TIME.search(text):
        return 0
    end = 0
    for match in HIGHLIGHT_END.finditer(text):
        end = match.end()
    return len(_words(text[:end]))


def _words(text: str) -> Words:
    """Returns the words of a text without its markup."""
    without_breaks = LINE_BREAK.sub(" ", text)
    without_markup = MARKUP.sub("", without_breaks)
    return tuple(html.unescape(without_markup).split())
