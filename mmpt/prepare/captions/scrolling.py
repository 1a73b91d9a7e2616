"""Removes the repeated text of subtitles that scroll.

Automatic subtitles scroll: a cue shows the last lines of the cue before it once more, and a new
line below them. Between two such cues YouTube writes a hold cue of about 10 ms, which shows old
lines only. Converters drop the word times, the hold cues, or the line breaks. Transcription tools
that highlight the spoken word write the same text once per word.

A repeated text is not always old: speakers repeat themselves, and dialogs and songs have lines
that look like scrolling. Every cue is therefore compared with what was shown before it, and the
cues between two pauses are judged together: repeats are removed only where they are the rule. A
text that is shown again after a pause is a new caption.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, pairwise
from typing import Literal, NamedTuple

MAX_GAP_S = 0.05
"""Cues that are at most this far apart follow each other without a pause."""
HOLD_S = 0.05
"""A cue of at most this length is too short to read. It only holds what was shown before."""
WORD_S = 0.07
"""The shortest time in which a word can be said. Fast speech has 5 words a second."""

Words = tuple[str, ...]


class Cue(NamedTuple):
    """One subtitle as it is shown, or what is new in it."""

    start: float  # seconds
    end: float  # seconds
    lines: tuple[Words, ...]  # a line of blanks has no words
    new_from: int | None = None  # words before the first one that is timed within the cue
    highlight: int = 0  # words up to the end of the highlighted ones; 0 if none is highlighted

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
        return not self.is_hold and self.end - self.start >= WORD_S * len(self.lines[-1])


Repeat = Literal["timed", "hold", "lines", "fewer", "same", "none"]
"""What a cue repeats of the text that was shown before it.

- timed: the last lines, in a file with word times; new ones follow. Only scrolling does that.
- hold: all of it, and there is nothing new, for certain.
- lines: the last lines, in a file without word times; new ones follow.
- fewer: the last lines, and there is nothing new; or all, for too short a time to say it again.
- same: all, for so long that it may have been said again. This says nothing about the track.
- none: nothing.
"""
REPEATS: tuple[Repeat, ...] = ("timed", "hold", "lines", "fewer")


class Track(NamedTuple):
    """What a file as a whole shows."""

    has_word_times: bool
    has_highlights: bool  # a part of some cue is highlighted


class Step(NamedTuple):
    """A cue compared with the window: what was shown before it."""

    num_old: int  # words that the cue begins with, and that the window ends with
    has_new: bool  # the cue has more words than those
    repeat: Repeat
    has_pause: bool  # between this cue and the one before it


def remove_repeats(cues: Sequence[Cue]) -> list[Cue]:
    """Returns the new text of every cue. Cues without new text make the cue before them longer.

    Args:
        cues: in file order. Each has at least one word.
    """
    track = Track(
        has_word_times=any(cue.new_from is not None for cue in cues),
        has_highlights=any(0 < cue.highlight < len(cue.words) for cue in cues),
    )
    steps = _compare(cues, track)
    file_scrolls = _outnumber([step for step in steps if not step.has_pause])
    kept: list[Cue] = []
    for run in _runs(steps):
        scrolls = _is_scrolling([steps[place] for place in run[1:]], file_scrolls)
        for place in run:
            cue, step = cues[place], steps[place]
            before = cues[place - 1] if place else None
            if before and track.has_highlights and cue.words == before.words:
                is_old = _is_still_said(cue, step, kept[-1].highlight, scrolls)
                num_old = len(cue.words) if is_old else 0
            else:
                num_old = _num_old(cue, step, scrolls, bool(before and before.is_hold))
            if num_old < len(cue.words):
                kept.append(cue._replace(lines=(cue.words[num_old:],)))
            else:
                end = max(kept[-1].end, cue.end)
                highlight = cue.highlight or kept[-1].highlight
                kept[-1] = kept[-1]._replace(end=end, highlight=highlight)
    return kept


def _compare(cues: Sequence[Cue], track: Track) -> list[Step]:
    """Returns the steps of a file: by lines, or by words if that explains most of them.

    Files whose line breaks were removed, and live captions that grow, repeat words of a line.
    """
    by_lines = list(_steps(cues, track, by_lines=True))
    by_words = list(_steps(cues, track, by_lines=False))
    num_lines, num_words = (
        sum(step.has_new and step.num_old > 0 and not step.has_pause for step in steps)
        for steps in (by_lines, by_words)
    )
    num_against = 0
    for place, step in enumerate(by_words):
        # After a hold cue, a file without line breaks shows new words.
        lacks_new = place > 0 and cues[place - 1].is_hold and not step.has_new
        is_against = step.num_old == 0 or (lacks_new and not cues[place].is_hold)
        num_against += is_against and not step.has_pause
    # One such step alone proves nothing.
    explains_more = num_words > 1 and num_words - num_lines > num_lines + num_against
    return by_words if explains_more else by_lines


def _steps(cues: Sequence[Cue], track: Track, by_lines: bool) -> Iterator[Step]:
    """Compares every cue with what was shown before it."""
    window: list[Words] = []  # the lines, or texts, that were shown last
    before: Cue | None = None
    for cue in cues:
        has_pause = True
        if before:
            gap = round(cue.start - before.end, 3)
            has_pause = cue.start < before.start or gap > MAX_GAP_S
        num_texts = _num_repeated(window, cue, by_lines)
        repeated = window[len(window) - num_texts :]
        num_old = sum(map(len, repeated))
        has_new = num_old < len(cue.words)
        kind = _kind(cue, num_old, sum(map(len, window)), track)
        yield Step(num_old, has_new, kind, has_pause)
        # Cues without anything new do not change what scrolls on.
        if has_new or has_pause:
            starts = [num_old, *(end for end in cue.line_ends if end > num_old)]
            new = [cue.words[a:b] for a, b in pairwise(starts)]
            window = [*repeated, *new]
        before = cue


def _num_repeated(window: list[Words], cue: Cue, by_lines: bool) -> int:
    """Returns how many of the last texts of the window the cue begins with, as many as possible.

    A few common words at the end of one sentence and the beginning of the next do not count.

    Args:
        by_lines: they must be whole lines of the cue.
    """
    # The upper line is empty and the lower one has text: no old line is shown.
    if not cue.is_hold and not cue.lines[0] and cue.lines[-1]:
        return 0
    limit = len(cue.words) if cue.new_from is None else cue.new_from
    # The same line has filled the whole window, and is said once more.
    last = cue.lines[-1]
    if len(cue.lines) > 1 and set(cue.lines) == {last} and cue.can_be_said:
        limit = min(limit, len(cue.words) - len(last))
    for num_texts in range(len(window), 0, -1):
        old = tuple(chain.from_iterable(window[-num_texts:]))
        is_whole = not by_lines or len(old) in (*cue.line_ends, cue.new_from)
        if len(old) <= limit and is_whole and cue.words[: len(old)] == old:
            return num_texts
    return 0


def _kind(cue: Cue, num_old: int, num_shown: int, track: Track) -> Repeat:
    """Returns what a cue repeats.

    Args:
        num_old: words that it repeats.
        num_shown: words of the window.
    """
    if num_old == 0:
        return "none"
    if num_old < len(cue.words):
        return "timed" if track.has_word_times else "lines"
    # The lower line is empty, or the words have no times, though those of new text have.
    is_old = not cue.lines[-1] or (track.has_word_times and len(cue.lines[-1]) > 1)
    if is_old or cue.is_hold:
        return "hold"
    moves_on = track.has_highlights and cue.highlight > 0
    is_same = num_old == num_shown and cue.can_be_said and not moves_on
    return "same" if is_same else "fewer"


def _runs(steps: Sequence[Step]) -> Iterator[range]:
    """Yields the positions of the cues between two pauses.

    A pause after which an old line stands above a new one does not end a run.
    """
    first = 0
    for place, step in enumerate(steps[1:], start=1):
        keeps_window = step.num_old > 0 and step.has_new
        if step.has_pause and not keeps_window:
            yield range(first, place)
            first = place
    if steps:
        yield range(first, len(steps))


def _outnumber(steps: Sequence[Step]) -> bool:
    """Returns True if there are more repeats than cues that repeat nothing."""
    counts = Counter(step.repeat for step in steps)
    return sum(counts[repeat] for repeat in REPEATS) > counts["none"]


def _is_scrolling(steps: Sequence[Step], file_scrolls: bool) -> bool:
    """Returns True if repeats are the rule in a run, whose first step is left out.

    One or two repeats without a hold cue count only if most of the file repeats.
    """
    counts = Counter(step.repeat for step in steps)
    num_repeats = sum(counts[repeat] for repeat in REPEATS)
    is_clear = counts["hold"] > 0 or num_repeats >= 3 or file_scrolls
    return counts["timed"] > 0 or (is_clear and num_repeats > counts["none"])


def _num_old(cue: Cue, step: Step, scrolls: bool, follows_hold: bool) -> int:
    """Returns the number of words at the beginning of a cue that were said before it.

    Args:
        scrolls: the cue belongs to a run that scrolls.
        follows_hold: the cue before it is a hold cue.
    """
    if step.repeat == "hold" and not step.has_pause:
        return len(cue.words)
    if not scrolls:
        return 0
    if step.has_new:
        return step.num_old
    # The cue shows old text only. After a hold cue, the text was said again, because the next cue
    # always adds a line.
    last = cue.lines[-1]
    if follows_hold and last and cue.can_be_said:
        return len(cue.words) - len(last)
    return 0 if step.has_pause else len(cue.words)


def _is_still_said(cue: Cue, step: Step, highlight: int, scrolls: bool) -> bool:
    """Returns True if a text that highlights its words goes on; False if it is said again.

    Args:
        highlight: words up to the last highlighted one of the text so far.
    """
    if cue.highlight:
        return cue.highlight > highlight  # it is said again when the highlight jumps back
    # Between two words nothing is highlighted.
    return not step.has_pause and bool(highlight or scrolls or cue.is_hold)
