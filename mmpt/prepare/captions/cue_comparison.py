"""Compares subtitles with the text that was shown before them (see scrolling.py)."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal, NamedTuple

from mmpt.prepare.captions.cue import Cue, Words

MAX_GAP_S = 0.05
"""Longest gap between two cues that does not count as a pause, in seconds."""

Repeat = Literal["timed", "lines", "hold", "fewer", "same", "none"]
"""The part of the text shown before that a cue repeats:

- timed: the last lines, followed by new text, in a file with word times. This proves scrolling.
- lines: the last lines, followed by new text, in a file without word times.
- hold: text that is certainly old, without new text.
- fewer: the last lines, without new text; or all lines, in too short a time to say them again.
- same: all lines, long enough to say them again. This is evidence neither for nor against
  scrolling.
- none: nothing.
"""


class Step(NamedTuple):
    """A cue compared with the text that was shown before it."""

    cue: Cue
    before: Cue | None  # the previous cue
    # Number of words at the beginning of the cue that repeat the last lines shown.
    num_old: int
    repeat: Repeat
    has_pause: bool  # there is a pause between the previous cue and this one

    @property
    def has_old(self) -> bool:
        """Whether the cue begins with old words."""
        return self.num_old > 0

    @property
    def has_new(self) -> bool:
        """Whether words follow the old ones."""
        return self.num_old < len(self.cue.words)

    @property
    def is_unchanged(self) -> bool:
        """Whether the previous cue has the same words."""
        return self.before is not None and self.before.words == self.cue.words

    @property
    def follows_hold(self) -> bool:
        """Whether the previous cue is a hold cue."""
        return self.before is not None and self.before.is_hold


def compare_cues(cues: Sequence[Cue]) -> list[Step]:
    """Returns the steps of a file. Compares cues by lines, or by words if that explains more cues.

    Comparing words is necessary if the line breaks were removed, or if the lines of live captions
    grow. Words are chosen if the number of cues that they explain in addition exceeds the number
    that lines explain plus the number that speak against words.
    """
    by_lines = list(_compare(cues, by_lines=True))
    by_words = list(_compare(cues, by_lines=False))
    num_lines = _num_scrolled(by_lines)
    num_words = _num_scrolled(by_words)
    # A single cue is not enough evidence.
    if num_words <= 1:
        return by_lines
    num_against = sum(map(_speaks_against_words, by_words))
    explains_more = num_words - num_lines > num_lines + num_against
    return by_words if explains_more else by_lines


def _num_scrolled(steps: Sequence[Step]) -> int:
    """Returns the number of cues that have new text after old text, without a pause."""
    scrolled = [step for step in steps if step.has_old and step.has_new]
    return sum(not step.has_pause for step in scrolled)


def _speaks_against_words(step: Step) -> bool:
    """Returns whether a step shows that the lines of a file do not grow word by word."""
    if step.has_pause:
        return False
    if not step.has_old:
        return True
    # Without line breaks, the cue after a hold cue must have new words.
    needs_new = step.follows_hold and not step.cue.is_hold
    return needs_new and not step.has_new


def _compare(cues: Sequence[Cue], by_lines: bool) -> Iterator[Step]:
    """Yields the steps of a file. Compares every cue with the window.

    The window consists of the texts of the last cue that had new text.

    Args:
        by_lines: compare whole lines, not words.
    """
    has_word_times = any(cue.new_from is not None for cue in cues)
    window: list[Words] = []
    before: Cue | None = None
    for cue in cues:
        has_pause = before is None or _is_pause(before, cue)
        # Find the texts at the end of the window that the cue repeats.
        num_texts = _num_repeated(window, cue, by_lines)
        repeated = window[len(window) - num_texts :]
        num_old = sum(map(len, repeated))
        num_shown = sum(map(len, window))
        repeat = _classify(cue, num_old, num_shown, has_word_times)
        step = Step(cue, before, num_old, repeat, has_pause)
        yield step
        # The new window consists of the repeated texts and the new lines. A cue without new text
        # does not change the window, unless there was a pause.
        if step.has_new or has_pause:
            window = [*repeated, *_new_texts(cue, num_old)]
        before = cue


def _is_pause(before: Cue, cue: Cue) -> bool:
    """Returns whether there is a pause between two cues."""
    if cue.start < before.start:
        return True
    gap_s = round(cue.start - before.end, 3)
    return gap_s > MAX_GAP_S


def _new_texts(cue: Cue, num_old: int) -> list[Words]:
    """Returns the lines of a cue without its old words."""
    words = cue.words
    texts = []
    begin = num_old
    for end in cue.line_ends:
        if end > num_old:
            texts.append(words[begin:end])
            begin = end
    return texts


def _num_repeated(window: list[Words], cue: Cue, by_lines: bool) -> int:
    """Returns the largest number of texts at the end of the window that the cue begins with.

    Only whole texts count, because a sentence may begin with the last words of the previous one.

    Args:
        by_lines: the texts must end where a line of the cue ends.
    """
    last = cue.lines[-1]
    # If the first line is blank and the last one is not, no old line is shown.
    starts_blank = not cue.lines[0] and last
    if starts_blank and not cue.is_hold:
        return 0
    words = cue.words
    # In a cue with word times, all words from the first timed one are new.
    limit = len(words)
    if cue.new_from is not None:
        limit = cue.new_from
    # If all lines are equal, the last one is new: the sentence is said again.
    num_lines = len(cue.lines)
    num_equal = cue.lines.count(last)
    if num_lines > 1 and num_equal == num_lines and cue.can_be_said:
        num_before_last = len(words) - len(last)
        limit = min(limit, num_before_last)
    ends = {*cue.line_ends, cue.new_from}
    for num_texts in range(len(window), 0, -1):
        old = tuple(chain.from_iterable(window[-num_texts:]))
        num_old = len(old)
        if num_old > limit:
            continue
        if by_lines and num_old not in ends:
            continue
        if words[:num_old] == old:
            return num_texts
    return 0


def _classify(cue: Cue, num_old: int, num_shown: int, has_word_times: bool) -> Repeat:
    """Returns the kind of repeat of a cue.

    Args:
        num_old: number of old words in the cue.
        num_shown: number of words in the window.
        has_word_times: some cues of the file have word times.
    """
    if num_old == 0:
        return "none"
    if num_old < len(cue.words):
        return "timed" if has_word_times else "lines"
    # The text is certainly old if the last line is blank, or if it has no word times although the
    # file has some.
    num_last = len(cue.lines[-1])
    if num_last == 0 or cue.is_hold:
        return "hold"
    if num_last > 1 and has_word_times:
        return "hold"
    if num_old == num_shown and cue.can_be_said and not cue.highlight:
        return "same"
    return "fewer"
