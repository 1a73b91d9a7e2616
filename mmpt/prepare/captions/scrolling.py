"""Removes the repeated text of subtitles that scroll.

Automatic subtitles scroll: a cue shows the last lines of the previous cue again, and a new line
below them. Between two such cues, YouTube writes a hold cue of about 10 ms, which shows old lines
only:

    0.00 - 2.39   peel the onion
    2.39 - 2.40   peel the onion                  (hold cue)
    2.40 - 4.10   peel the onion / and chop it

Some converters drop the word times, the hold cues, or the line breaks. Transcription tools that
highlight the spoken word write the same text once per word.

A repeated text is not always old: speakers repeat themselves, and dialogs and songs have lines
that look like scrolling. The algorithm therefore has three steps:

1. Compare each cue with the text that was shown before it (`_compare_cues`).
2. Split the cues at the pauses (`_split_at_pauses`). A text that is shown again after a pause is
   new.
3. Remove the repeats of each run in which most cues repeat text (`_is_scrolling`).
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Literal, NamedTuple

MAX_GAP_S = 0.05
"""Longest gap between two cues that does not count as a pause, in seconds."""
HOLD_S = 0.05
"""Longest hold cue, in seconds. It is too short to read and shows old text only."""
WORD_S = 0.07
"""Shortest time in which a word can be said, in seconds. Fast speech has 5 words per second."""

Words = tuple[str, ...]


class Cue(NamedTuple):
    """One subtitle, with all of its text or with the new part only."""

    start: float  # seconds
    end: float  # seconds
    lines: tuple[Words, ...]  # a blank line has no words
    new_from: int | None = None  # number of words before the first one that has a word time
    highlight: int = 0  # number of words up to the last highlighted one; 0 if there is none

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
        return round(self.end - self.start, 3) <= HOLD_S

    @property
    def can_be_said(self) -> bool:
        """Whether the cue is long enough to say its last line."""
        shortest_s = WORD_S * len(self.lines[-1])
        return not self.is_hold and self.end - self.start >= shortest_s


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
    num_old: int  # number of words at the beginning of the cue that repeat the last lines shown
    repeat: Repeat
    has_pause: bool  # there is a pause between the previous cue and this one

    @property
    def has_new(self) -> bool:
        """Whether words follow the old ones."""
        return self.num_old < len(self.cue.words)

    @property
    def follows_hold(self) -> bool:
        """Whether the previous cue is a hold cue."""
        return self.before is not None and self.before.is_hold


def remove_repeats(cues: Sequence[Cue]) -> list[Cue]:
    """Returns the new text of every cue. A cue without new text extends the cue before it.

    Args:
        cues: in file order. Each has at least one word.
    """
    has_highlights = any(0 < cue.highlight < len(cue.words) for cue in cues)
    if not has_highlights:  # tags around whole cues are formatting
        cues = [cue._replace(highlight=0) for cue in cues]
    # Steps 1 and 2: compare the cues, and split them at the pauses.
    steps = _best_comparison(cues)
    file_scrolls = _most_repeat([step for step in steps if not step.has_pause])
    kept: list[Cue] = []
    for run in _split_at_pauses(steps):
        # Step 3: find the number of old words at the beginning of each cue of the run.
        scrolls = _is_scrolling(run[1:], file_scrolls)
        for step in run:
            cue = step.cue
            if has_highlights and step.before and cue.words == step.before.words:
                is_old = _is_still_said(step, kept[-1].highlight, scrolls)
                num_old = len(cue.words) if is_old else 0
            else:
                num_old = _num_said_before(step, scrolls)
            # Keep the new words. If there are none, the previous caption is shown longer.
            if num_old < len(cue.words):
                kept.append(cue._replace(lines=(cue.words[num_old:],)))
            else:
                end = max(kept[-1].end, cue.end)
                highlight = cue.highlight or kept[-1].highlight
                kept[-1] = kept[-1]._replace(end=end, highlight=highlight)
    return kept


def _best_comparison(cues: Sequence[Cue]) -> list[Step]:
    """Returns the steps of a file. Compares cues by lines, or by words if that explains more cues.

    Comparing words is necessary if the line breaks were removed, or if the lines of live captions
    grow. It is chosen if the cues that it explains in addition are more than those that lines
    explain and those that speak against it.
    """
    by_lines = list(_compare_cues(cues, by_lines=True))
    by_words = list(_compare_cues(cues, by_lines=False))
    num_lines, num_words = _num_scrolled(by_lines), _num_scrolled(by_words)
    num_against = 0
    for step in by_words:
        # Without line breaks, the cue after a hold cue must have new words.
        lacks_new = step.follows_hold and not step.has_new and not step.cue.is_hold
        num_against += not step.has_pause and (step.num_old == 0 or lacks_new)
    # A single cue is not enough evidence.
    explains_more = num_words > 1 and num_words - num_lines > num_lines + num_against
    return by_words if explains_more else by_lines


def _num_scrolled(steps: Sequence[Step]) -> int:
    """Returns the number of cues that have new text after old text."""
    return sum(step.has_new and step.num_old > 0 and not step.has_pause for step in steps)


def _compare_cues(cues: Sequence[Cue], by_lines: bool) -> Iterator[Step]:
    """Compares every cue with the window, the texts of the last cue that had new text.

    Args:
        by_lines: compare whole lines, not words.
    """
    has_word_times = any(cue.new_from is not None for cue in cues)
    window: list[Words] = []
    before: Cue | None = None
    for cue in cues:
        has_pause = True
        if before:
            gap = round(cue.start - before.end, 3)
            has_pause = cue.start < before.start or gap > MAX_GAP_S
        # Find the texts at the end of the window that the cue repeats.
        num_texts = _num_repeated(window, cue, by_lines)
        repeated = window[len(window) - num_texts :]
        num_old = sum(map(len, repeated))
        repeat = _classify(cue, num_old, sum(map(len, window)), has_word_times)
        step = Step(cue, before, num_old, repeat, has_pause)
        yield step
        # The new window consists of the repeated texts and the new lines. A cue without new text
        # does not change the window, unless there was a pause.
        if step.has_new or has_pause:
            starts = [num_old, *(end for end in cue.line_ends if end > num_old)]
            new = [cue.words[a:b] for a, b in pairwise(starts)]
            window = [*repeated, *new]
        before = cue


def _num_repeated(window: list[Words], cue: Cue, by_lines: bool) -> int:
    """Returns the largest number of texts at the end of the window that the cue begins with.

    Only whole texts count, because a sentence may begin with the last words of the previous one.

    Args:
        by_lines: the texts must end where a line of the cue ends.
    """
    # If the first line is blank and the last one is not, no old line is shown.
    if not cue.is_hold and not cue.lines[0] and cue.lines[-1]:
        return 0
    limit = len(cue.words) if cue.new_from is None else cue.new_from
    # If all lines are equal, the last one is new: the sentence is said again.
    last = cue.lines[-1]
    if len(cue.lines) > 1 and set(cue.lines) == {last} and cue.can_be_said:
        limit = min(limit, len(cue.words) - len(last))
    for num_texts in range(len(window), 0, -1):
        old = tuple(chain.from_iterable(window[-num_texts:]))
        is_whole = not by_lines or len(old) in (*cue.line_ends, cue.new_from)
        if len(old) <= limit and is_whole and cue.words[: len(old)] == old:
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
    last = cue.lines[-1]
    is_old = not last or (has_word_times and len(last) > 1)
    if is_old or cue.is_hold:
        return "hold"
    is_same = num_old == num_shown and cue.can_be_said and not cue.highlight
    return "same" if is_same else "fewer"


def _split_at_pauses(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Yields the runs of steps between pauses.

    A cue after a pause continues the run if it shows an old line above a new one.
    """
    run: list[Step] = []
    for step in steps:
        continues = not step.has_pause or (step.num_old > 0 and step.has_new)
        if run and not continues:
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def _is_scrolling(steps: Sequence[Step], file_scrolls: bool) -> bool:
    """Returns whether a run scrolls.

    It does if a repeat proves it, or if most cues repeat text. In the second case, one or two
    repeats without a hold cue are enough only if most cues of the file repeat text.

    Args:
        steps: the steps of the run without the first one, which has nothing to repeat.
        file_scrolls: most cues of the file repeat text.
    """
    kinds = [step.repeat for step in steps]
    num_repeats = len(kinds) - kinds.count("none") - kinds.count("same")
    is_clear = file_scrolls or "hold" in kinds or num_repeats >= 3
    return "timed" in kinds or (is_clear and _most_repeat(steps))


def _most_repeat(steps: Sequence[Step]) -> bool:
    """Returns whether more cues repeat text than do not. Cues of the kind `same` do not count."""
    kinds = [step.repeat for step in steps if step.repeat != "same"]
    return 2 * kinds.count("none") < len(kinds)


def _num_said_before(step: Step, scrolls: bool) -> int:
    """Returns the number of words at the beginning of a cue that were said before it.

    Args:
        scrolls: the cue belongs to a run that scrolls.
    """
    cue = step.cue
    if step.repeat == "hold" and not step.has_pause:
        return len(cue.words)
    if not scrolls:
        return 0
    if step.has_new:
        return step.num_old
    # The cue shows old text only. A cue after a hold cue always has a new line, so the last line
    # was said again.
    last = cue.lines[-1]
    if step.follows_hold and last and cue.can_be_said:
        return len(cue.words) - len(last)
    return 0 if step.has_pause else len(cue.words)


def _is_still_said(step: Step, highlight: int, scrolls: bool) -> bool:
    """Returns whether a cue with the same text as the previous cue continues it.

    Otherwise, the text is said again. This is for files that highlight the spoken words.

    Args:
        highlight: number of words up to the last one that was highlighted.
        scrolls: the cue belongs to a run that scrolls.
    """
    if step.cue.highlight:
        return step.cue.highlight > highlight  # if the highlight jumps back, the text is said again
    # Between two words, nothing is highlighted.
    return not step.has_pause and bool(highlight or scrolls or step.cue.is_hold)
