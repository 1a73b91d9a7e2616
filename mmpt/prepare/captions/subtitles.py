"""Parses WebVTT and SubRip subtitles and removes the repeated lines of YouTube's automatic ones.

Why not a library: pysubs2 1.8 takes a text line with two word times for a timing line (`ROLLING` in
the tests has one) and appends WebVTT's comments and identifiers to the caption in front of them.
webvtt-py 0.6 drops a cue silently when its timing line is broken, or when a SubRip cue has no
number. Here, a broken timing line is an error that names the line.
"""

import html
import re
from itertools import pairwise
from typing import NamedTuple

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList

ARROW = "-->"
EXAMPLE = f"`00:00:01.000 {ARROW} 00:00:03.500`"
TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
TIMING = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
WORD_TIME = re.compile(rf"<{TIME}>")  # automatic subtitles of YouTube time every word
MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # <c>, <i>, and SubRip's {\an8}
NEWLINE = re.compile(r"\r\n|\r|\n")
ROLLING_CUES = 4
ROLLING_SHARE = 0.8
"""Subtitles roll if they have this many cues, and this share of them repeat a line."""


class Cue(NamedTuple):
    """One subtitle as it is shown."""

    start: float  # seconds
    end: float  # seconds
    lines: list[str]  # without markup; none is blank


def parse_subtitles(text: str, name: str) -> CaptionList:
    """Returns the captions of a WebVTT or SubRip text, in file order.

    Args:
        name: the file, for messages.
    Raises:
        DataError: there are no subtitles, or a timing line is broken. Names the line.
    """
    is_vtt = text.startswith("WEBVTT")
    cues = _parse_cues(NEWLINE.split(text), is_vtt, name)
    if not cues and text.strip() and not is_vtt:
        raise DataError(f"{name}: must hold subtitles with lines like {EXAMPLE}, but has none.")
    cues = [cue for cue in cues if cue.lines]
    if WORD_TIME.search(text) or _is_rolling(cues):
        cues = _without_repeats(cues)
    return {
        "start": [cue.start for cue in cues],
        "end": [cue.end for cue in cues],
        "text": [" ".join(cue.lines) for cue in cues],
    }


def _parse_cues(lines: list[str], is_vtt: bool, name: str) -> list[Cue]:
    """Returns the cues; DataError names a broken timing line by its number."""
    cues: list[Cue] = []
    is_open = False  # the next line belongs to the text of the last cue
    for number, line in enumerate(lines, start=1):
        # WebVTT forbids arrows in a text. A SubRip text may have one if it is not a timing line.
        if ARROW in line and (is_vtt or TIMING.fullmatch(line) or not is_open):
            match = TIMING.fullmatch(line)
            if match is None:
                raise DataError(
                    f"{name}: line {number} must read like {EXAMPLE}, but is {line.strip()!r}. "
                    "Correct it."
                )
            fields = match.groups()
            cues.append(Cue(_seconds(fields[:4]), _seconds(fields[4:]), []))
            is_open = True
        # YouTube's WebVTT has lines of one space inside cues, so only an empty line ends a cue.
        elif not (line if is_vtt else line.strip()):
            is_open = False
        elif is_open and (shown := " ".join(html.unescape(MARKUP.sub("", line)).split())):
            cues[-1].lines.append(shown)
    return cues


def _seconds(fields: tuple[str | None, ...]) -> float:
    """Returns the seconds of the groups of `TIME`."""
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{int(seconds)}.{fraction}")


def _is_rolling(cues: list[Cue]) -> bool:
    """Returns True if most cues begin with the line that the cue before them ended with."""
    num_repeats = sum(before.lines[-1] == after.lines[0] for before, after in pairwise(cues))
    return len(cues) >= ROLLING_CUES and num_repeats >= ROLLING_SHARE * (len(cues) - 1)


def _without_repeats(cues: list[Cue]) -> list[Cue]:
    """Removes the lines that a cue repeats from the cue before it.

    Automatic subtitles scroll: a cue shows the last lines of the cue before it once more, and a new
    line below them. A cue without a new line makes the last kept cue longer.
    """
    kept: list[Cue] = []
    before: list[str] = []
    for cue in cues:
        # The first `num_repeats` lines, as many as possible, are the last ones of the cue before.
        num_repeats = min(len(before), len(cue.lines))
        while cue.lines[:num_repeats] != before[len(before) - num_repeats :]:
            num_repeats -= 1
        before = cue.lines
        if num_repeats == len(cue.lines) and kept:
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end, cue.end))
        else:
            kept.append(cue._replace(lines=cue.lines[num_repeats:]))
    return kept
