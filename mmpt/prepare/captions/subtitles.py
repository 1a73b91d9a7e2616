"""Parses WebVTT and SubRip subtitles, and undoes the rolling repeats of YouTube's automatic ones.

Our own hundred lines rather than pysubs2 or webvtt-py: both parse cues, but the work here is the repeats (automatic
subtitles show every line two or three times) and messages that name the line, and neither does them.
"""

from __future__ import annotations

import html
import re
from itertools import pairwise
from typing import NamedTuple

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList

ARROW = "-->"
TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
TIMING = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}(?:\s.*)?")
WORD_TIME = re.compile(rf"<{TIME}>")  # inside a text: YouTube's automatic subtitles time every word
MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")  # <c>, <i>, and SubRip's {\an8}
NEWLINE = re.compile(r"\r\n|\r|\n")
ROLLING_SHARE, ROLLING_CUES = 0.8, 4  # so many cues or more, of which such a share begin with the line before them


class Cue(NamedTuple):
    """One subtitle as it is shown."""

    start: float  # seconds
    end: float  # seconds
    lines: list[str]  # without markup; none is blank


def parse_subtitles(text: str, name: str) -> CaptionList:
    """Return the captions of a WebVTT or SubRip text, in file order.

    Args:
        name: the file, for messages.
    Raises:
        DataError: no subtitles, or a timing line is broken; names the line.
    """
    is_vtt = text.startswith("WEBVTT")
    cues, word_times = _parse_cues(NEWLINE.split(text), is_vtt, name)
    if not cues and text.strip() and not is_vtt:
        raise DataError(
            f"{name}: must hold subtitles with lines like `00:00:01.000 {ARROW} 00:00:03.500`, but has none."
        )
    if word_times or _is_rolling(cues):
        cues = _without_repeats(cues)
    shown = [cue for cue in cues if cue.lines]
    return {
        "start": [cue.start for cue in shown],
        "end": [cue.end for cue in shown],
        "text": [" ".join(cue.lines) for cue in shown],
    }


def _parse_cues(lines: list[str], is_vtt: bool, name: str) -> tuple[list[Cue], bool]:
    """Return the cues, and whether their words are timed."""
    cues: list[Cue] = []
    word_times = is_open = False
    for number, line in enumerate(lines, 1):
        if ARROW in line and (is_vtt or TIMING.fullmatch(line) or not is_open):
            cues.append(_timing(line, number, name))
            is_open = True
        elif not (line if is_vtt else line.strip()):
            is_open = False  # YouTube writes blank lines of one space into its cues, so only empty ones end them
        elif is_open:
            word_times |= WORD_TIME.search(line) is not None
            if shown := " ".join(html.unescape(MARKUP.sub("", line)).split()):
                cues[-1].lines.append(shown)
    return cues, word_times


def _timing(line: str, number: int, name: str) -> Cue:
    match = TIMING.fullmatch(line)
    if match is None:
        raise DataError(
            f"{name}: line {number} must read like `00:00:01.000 {ARROW} 00:00:03.500`, but is {line.strip()!r}."
        )
    fields = match.groups()
    return Cue(_seconds(fields[:4]), _seconds(fields[4:]), [])


def _seconds(fields: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{int(seconds)}.{fraction}")


def _is_rolling(cues: list[Cue]) -> bool:
    """True when most cues begin with the line that the cue before them ended with."""
    shown = [cue.lines for cue in cues if cue.lines]
    repeats = sum(before[-1] == after[0] for before, after in pairwise(shown))
    return len(shown) >= ROLLING_CUES and repeats >= ROLLING_SHARE * (len(shown) - 1)


def _without_repeats(cues: list[Cue]) -> list[Cue]:
    """Drop the lines that a cue repeats from the one before; a cue of repeats only makes the last new one longer."""
    kept: list[Cue] = []
    before: list[str] = []
    for cue in cues:
        if not cue.lines:
            continue
        num_repeats = next(
            n for n in range(min(len(before), len(cue.lines)), -1, -1) if cue.lines[:n] == before[len(before) - n :]
        )
        before = cue.lines
        if num_repeats == len(cue.lines) and kept:
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end, cue.end))
        else:
            kept.append(cue._replace(lines=cue.lines[num_repeats:]))
    return kept
