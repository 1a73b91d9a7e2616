"""Removes the repeated text of subtitles that scroll.

Automatic subtitles scroll: a cue shows the last lines of the cue before it once more, and a new
line below them. Between two such cues YouTube writes a hold cue of about 10 ms, which shows old
lines only. Converters drop the word times, the hold cues, or the line breaks. Transcription tools
that highlight the spoken word write the same text once per word.

A repeated text is not always old: speakers repeat themselves. Each cue is therefore compared with
the cue before it, and the cues between two pauses are judged together: repeats are removed only
where they are the rule. A text that is shown again after a pause is a new caption.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import Literal, NamedTuple

MAX_GAP_S = 0.05
"""Cues that are at most this far apart follow each other without a pause."""
HOLD_S = 0.05
"""A cue of at most this length is too short to read. It only holds what was shown before."""
WORD_S = 0.15
"""The shortest time in which a word can be said: nobody speaks 7 words a second for long."""


class Cue(NamedTuple):
    """One subtitle as it is shown, or what is new in it."""

    start: float  # seconds
    end: float  # seconds
    lines: tuple[tuple[str, ...], ...]  # their words; a line of blanks has none
    new_from: int | None = None  # words before the first one that is timed within the cue
    highlight: int = 0  # words up to the end of the highlighted ones; 0 if none is highlighted

    @property
    def words(self) -> tuple[str, ...]:
        """The words of all lines."""
        return tuple(chain.from_iterable(self.lines))

    @property
    def line_ends(self) -> list[int]:
        """The number of words up to the end of every line."""
        return list(accumulate(map(len, self.lines)))

    @property
    def is_hold(self) -> bool:
        """Whether the cue is too short to read."""
        return self.end - self.start <= HOLD_S

    @property
    def can_be_said(self) -> bool:
        """Whether the cue is long enough to say its last line."""
        return not self.is_hold and self.end - self.start >= WORD_S * len(self.lines[-1])


Repeat = Literal["timed", "lines", "fewer", "same", "none"]
"""What a cue repeats of the text shown before it: all up to the words that are timed within the
cue, some lines, fewer lines without anything new, the same for so long that it may have been said
again, or nothing."""


class Step(NamedTuple):
    """A cue compared with what was shown before it."""

    num_shared: int  # words that the cue begins with, and that the window before it ends with
    repeat: Repeat
    has_new: bool  # the cue has more words than those
    has_pause: bool  # between this cue and the one before it


def remove_repeats(cues: list[Cue]) -> list[Cue]:
    """Returns the new text of every cue. Cues without new text make the cue before them longer.

    Args:
        cues: in file order. Each has at least one word.
    """
    # A track highlights words if it highlights a part of some cue.
    highlights = any(0 < cue.highlight < len(cue.words) for cue in cues)
    steps = _compare(cues, highlights)
    kept: list[Cue] = []
    for run in _runs(steps):
        scrolls = _is_scrolling([steps[place] for place in run[1:]])
        for place in run:
            cue, step = cues[place], steps[place]
            before = cues[place - 1] if place else None
            if before and highlights and cue.words == before.words:
                is_again = _is_again(kept[-1].highlight, cue, step, scrolls)
                num_old = 0 if is_again else len(cue.words)
            else:
                follows_hold = before is not None and before.is_hold
                num_old = _num_old(cue, step, scrolls, follows_hold)
            if num_old < len(cue.words):
                kept.append(cue._replace(lines=(cue.words[num_old:],)))
            else:
                end = max(kept[-1].end, cue.end)
                highlight = cue.highlight or kept[-1].highlight
                kept[-1] = kept[-1]._replace(end=end, highlight=highlight)
    return kept


def _is_again(highlight: int, cue: Cue, step: Step, scrolls: bool) -> bool:
    """Returns True if a text is said again in a track that highlights words.

    Args:
        highlight: words up to the last highlighted one of the text so far.
    """
    if cue.highlight:
        return cue.highlight <= highlight  # the highlight jumps back
    # Between two words nothing is highlighted.
    return step.has_pause or not (highlight or scrolls)


def _compare(cues: list[Cue], highlights: bool) -> list[Step]:
    """Returns the steps of a file: by lines, or by words if that explains most of them.

    Files whose line breaks were removed, and live captions that grow, repeat words of a line.
    """
    by_lines = list(_steps(cues, highlights, by_lines=True))
    by_words = list(_steps(cues, highlights, by_lines=False))
    num_lines, num_words = (
        sum(step.has_new and step.num_shared > 0 and not step.has_pause for step in steps)
        for steps in (by_lines, by_words)
    )
    num_none = sum(step.num_shared == 0 and not step.has_pause for step in by_words)
    return by_words if num_words > max(2 * num_lines + num_none, 1) else by_lines


def _steps(cues: list[Cue], highlights: bool, by_lines: bool) -> Iterator[Step]:
    """Compares every cue with what was shown before it."""
    window = Cue(0, 0, ())  # the last cue that did not only hold old text
    starts: set[int] = set()  # words in front of each line and each text in it
    for before, cue in zip([None, *cues], cues, strict=False):
        is_next = before is not None and before.start <= cue.start <= before.end + MAX_GAP_S
        num_shared = _num_shared(window.words, starts, cue, by_lines)
        kind = _kind(window, cue, num_shared, highlights)
        has_new = num_shared < len(cue.words)
        yield Step(num_shared, kind, has_new, not is_next)
        if has_new or not is_next:
            shift = num_shared - len(window.words)
            starts = {start + shift for start in (*starts, len(window.words))}
            starts = {start for start in starts if start >= 0} | {0, *cue.line_ends}
            window = cue


def _num_shared(shown: tuple[str, ...], starts: set[int], cue: Cue, by_lines: bool) -> int:
    """Returns the greatest number of words that `shown` ends with and `cue` begins with.

    They are whole lines or texts. A few common words at the end of one sentence and the beginning
    of the next do not count.

    Args:
        shown: words of the window.
        starts: where its lines and texts start.
        by_lines: they are also whole lines of the cue.
    """
    # The upper line is empty and the lower one has text: no old line is shown.
    if not cue.is_hold and not cue.lines[0] and cue.lines[-1]:
        return 0
    new = cue.words
    limit = len(new) if cue.new_from is None else cue.new_from
    candidates = {len(shown) - start for start in starts}
    if by_lines:
        candidates &= {len(new), *cue.line_ends}
    if cue.new_from is not None:
        candidates.add(cue.new_from)
    # The same line has filled the whole window, and is said once more.
    last = cue.lines[-1]
    if len(cue.lines) > 1 and set(cue.lines) == {last} and cue.can_be_said:
        limit = min(limit, len(new) - len(last))
    for num_shared in sorted(candidates, reverse=True):
        is_possible = 0 < num_shared <= min(limit, len(shown))
        if is_possible and shown[len(shown) - num_shared :] == new[:num_shared]:
            return num_shared
    return 0


def _kind(window: Cue, cue: Cue, num_shared: int, highlights: bool) -> Repeat:
    if num_shared == 0:
        return "none"
    if num_shared == cue.new_from:
        return "timed"
    if num_shared < len(cue.words):
        return "lines"
    is_held = not cue.lines[-1]  # the lower line is empty: only old text is shown
    if is_held or not cue.can_be_said or (highlights and cue.highlight > window.highlight):
        return "lines"
    return "same" if cue.words == window.words else "fewer"


def _runs(steps: list[Step]) -> Iterator[range]:
    """Yields the positions of the cues between two pauses.

    A pause after which an old line stands above a new one does not end a run.
    """
    first = 0
    for place, step in enumerate(steps[1:], start=1):
        keeps_window = step.num_shared > 0 and step.has_new
        if step.has_pause and not keeps_window:
            yield range(first, place)
            first = place
    if steps:
        yield range(first, len(steps))


def _is_scrolling(steps: list[Step]) -> bool:
    """Returns True if repeats are the rule in a run, whose first step is left out."""
    counts = Counter(step.repeat for step in steps)
    num_repeats = counts["timed"] + counts["lines"] + counts["fewer"]
    # A single repeat counts if it follows without a pause, or if the rest is timed.
    is_sure = any(step.repeat == "lines" and not step.has_pause for step in steps)
    return num_repeats > counts["none"] and (is_sure or counts["timed"] > 0 or num_repeats > 1)


def _num_old(cue: Cue, step: Step, scrolls: bool, follows_hold: bool) -> int:
    """Returns the number of words at the beginning of a cue that were said before it.

    Args:
        scrolls: the cue belongs to a run that scrolls.
        follows_hold: the cue before it is a hold cue.
    """
    if cue.is_hold and not step.has_new and not step.has_pause:
        return len(cue.words)
    if not scrolls:
        return 0
    if step.has_new:
        return step.num_shared
    # The cue shows old text only. After a hold cue, the text was said again, because the next cue
    # always adds a line.
    last = cue.lines[-1]
    if follows_hold and last and cue.can_be_said:
        return len(cue.words) - len(last)
    return 0 if step.has_pause else len(cue.words)
