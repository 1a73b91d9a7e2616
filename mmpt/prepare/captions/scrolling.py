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

1. Compare each cue with the text that was shown before it (`compare_cues`).
2. Split the cues at the pauses (`_split_at_pauses`). A text that is shown again after a pause is
   new.
3. Remove the repeats of each run in which most cues repeat text (`_is_scrolling`).
"""

from collections.abc import Iterator, Sequence

from mmpt.prepare.captions.cue import Cue
from mmpt.prepare.captions.cue_comparison import Step, compare_cues


def remove_repeats(cues: Sequence[Cue]) -> list[Cue]:
    """Returns the new text of every cue. A cue without new text extends the cue before it.

    Args:
        cues: in file order. Each has at least one word.
    """
    has_highlights = any(0 < cue.highlight < len(cue.words) for cue in cues)
    if not has_highlights:  # tags around whole cues are formatting
        cues = [cue._replace(highlight=0) for cue in cues]
    # Steps 1 and 2: compare the cues, and split them at the pauses.
    steps = compare_cues(cues)
    without_pause = [step for step in steps if not step.has_pause]
    file_scrolls = _most_repeat(without_pause)
    kept: list[Cue] = []
    for run in _split_at_pauses(steps):
        # Step 3: find the number of old words at the beginning of each cue of the run.
        scrolls = _is_scrolling(run[1:], file_scrolls)
        for step in run:
            cue = step.cue
            if has_highlights and step.is_unchanged:
                num_old = 0
                if _is_still_said(step, kept[-1].highlight, scrolls):
                    num_old = len(cue.words)
            else:
                num_old = _num_said_before(step, scrolls)
            # Keep the new words. If there are none, the previous caption is shown longer.
            new_words = cue.words[num_old:]
            if new_words:
                kept.append(cue._replace(lines=(new_words,)))
            else:
                last = kept[-1]
                end = max(last.end, cue.end)
                highlight = cue.highlight or last.highlight
                kept[-1] = last._replace(end=end, highlight=highlight)
    return kept


def _split_at_pauses(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Yields the runs of steps between pauses.

    A cue after a pause continues the run if it shows an old line above a new one.
    """
    run: list[Step] = []
    for step in steps:
        shows_both = step.has_old and step.has_new
        ends_run = step.has_pause and not shows_both
        if run and ends_run:
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
    if "timed" in kinds:
        return True
    if file_scrolls or "hold" in kinds:
        return _most_repeat(steps)
    num_others = kinds.count("none") + kinds.count("same")
    num_repeats = len(kinds) - num_others
    return num_repeats >= 3 and _most_repeat(steps)


def _most_repeat(steps: Sequence[Step]) -> bool:
    """Returns whether more cues repeat text than do not. Cues of the kind `same` do not count."""
    kinds = [step.repeat for step in steps]
    num_none = kinds.count("none")
    num_repeats = len(kinds) - num_none - kinds.count("same")
    return num_repeats > num_none


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
    if step.has_pause:
        return 0
    return len(cue.words)


def _is_still_said(step: Step, highlight: int, scrolls: bool) -> bool:
    """Returns whether a cue with the same text as the previous cue continues it.

    Otherwise, the text is said again. This is for files that highlight the spoken words.

    Args:
        highlight: number of words up to the last one that was highlighted.
        scrolls: the cue belongs to a run that scrolls.
    """
    cue = step.cue
    if cue.highlight:
        # If the highlight jumps back, the text is said again.
        return cue.highlight > highlight
    if step.has_pause:
        return False
    # Between two words, nothing is highlighted.
    return highlight > 0 or scrolls or cue.is_hold
