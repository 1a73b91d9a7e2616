"""Finds the timing lines of WebVTT and SubRip subtitles, including damaged ones."""

import re
from typing import NamedTuple

from mmpt.errors import DataError

EXAMPLE = "`00:00:01.000 --> 00:00:03.500`"
# Spaces within a time, a comma or a dot, and missing leading zeros are accepted.
TIME = r"(?:\d{1,6} ?: ?)?\d{1,2} ?: ?\d{1,2}(?: ?[.,] ?\d{1,9})?"
ARROW = (
    r"(?:[-=\u2010-\u2015\u2212][-=\u2010-\u2015\u2212 ]{0,9}(?:>{1,2}|&gt;)|\u2192)"
)
"""`-->`, or another arrow that people and programs write instead of it."""
TIMING = re.compile(
    rf"\s*(?P<start>{TIME})\s*(?P<arrow>{ARROW})\s*(?P<end>{TIME})(?P<rest>\s.*)?"
)
# WebVTT's `align:start`, SubRip's `X1:10`.
SETTINGS = re.compile(r"(?:\s+[A-Za-z]\w*:\S*)*\s*")
# A line that was probably meant as a timing line: a time and an arrow, or two times.
NEARLY_TIMING = re.compile(
    rf"\s*\d+\s*:\s*\d.*{ARROW}.*|\s*{TIME}\D{{1,9}}{TIME}(?:\s.*)?"
)
NUMBER = re.compile(r"\s*\d{1,9}\s*")
# Lines that begin a comment. WEBVTT is the header of a file that was appended to another one.
COMMENT = re.compile(r"(?:NOTE|STYLE|REGION|WEBVTT)(?:\s.*)?")

Repairs = dict[str, list[int]]
"""Kind of repair -> numbers of the repaired lines, from 1."""


class Timing(NamedTuple):
    """A timing line."""

    line: int  # index of the line, from 0
    start: float  # seconds
    end: float  # seconds
    text: str  # text of the cue that begins in the same line; usually empty


def find_timings(
    lines: list[str], is_vtt: bool, name: str, repairs: Repairs
) -> list[Timing]:
    """Returns the timing lines.

    A line of text may look like a timing line. Whether it is one depends on the lines around it:
    whether the line above is a number, and whether the line belongs to the text of a cue, which
    ends with an empty line.

    Args:
        lines: the lines of the file.
        is_vtt: the file is WebVTT, not SubRip.
        name: name of the file, for messages.
        repairs: repairs are added here.
    Raises:
        DataError: a timing line is broken. The message has the line number.
    """
    timings = []
    is_text = False  # the line belongs to the text of a cue
    is_comment = False  # the line belongs to a comment of WebVTT
    above = ""
    for number, line in enumerate(lines, start=1):
        follows_number = NUMBER.fullmatch(above) is not None
        above = line
        may_be_timing = follows_number or not is_text
        # With another arrow, as in `1:30 -> 2:00`, a line within a text is text.
        match = TIMING.fullmatch(line)
        if match and (match["arrow"] == "-->" or may_be_timing):
            timing = _read_timing(match, number, repairs)
            timings.append(timing)
            is_text = True
            continue
        # A comment ends with an empty line.
        if not line:
            is_comment = False
        elif is_vtt and COMMENT.fullmatch(line):
            is_comment = True
        # A line that is not a timing line is broken if it contains an arrow where no text may have
        # one (WebVTT forbids arrows in texts, SubRip does not), or if it nearly is a timing line.
        has_wrong_arrow = "-->" in line and (is_vtt or not is_text)
        is_nearly_timing = may_be_timing and NEARLY_TIMING.fullmatch(line)
        if (has_wrong_arrow or is_nearly_timing) and not is_comment:
            raise DataError(
                f"{name}: line {number} must read like {EXAMPLE}, but is {line.strip()!r}. "
                "Correct it."
            )
        if not line.strip():
            is_text = False
    return timings


def _read_timing(match: re.Match[str], number: int, repairs: Repairs) -> Timing:
    """Returns a timing line. Adds what is unusual about it to `repairs`.

    Args:
        match: the match of `TIMING`.
        number: number of the line, from 1.
    """
    rest = match["rest"] or ""
    text = "" if SETTINGS.fullmatch(rest) else rest
    if text:
        repairs["text in a timing line kept"].append(number)
    arrow = match["arrow"]
    if arrow != "-->":
        repairs[f"`{arrow}` read as `-->`"].append(number)
    start = to_seconds(match["start"])
    end = to_seconds(match["end"])
    return Timing(number - 1, start, end, text)


def to_seconds(time: str) -> float:
    """Returns the seconds of a time that matches `TIME`."""
    plain = time.replace(" ", "").replace(",", ".")
    *hours, minutes, seconds = plain.split(":")
    num_minutes = int(minutes)
    if hours:
        num_minutes += 60 * int(hours[0])
    return 60 * num_minutes + float(seconds)
