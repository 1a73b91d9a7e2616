"""Parses WebVTT and SubRip subtitles, also damaged ones.

Why not a library: pysubs2 1.8 takes a text line with two word times for a timing line (YouTube's
automatic subtitles have such lines) and appends WebVTT's comments and identifiers to the caption in
front of them. webvtt-py 0.6 drops a cue silently when its timing line is broken, or when a SubRip
cue has no number. Here, nothing is lost silently: a broken timing line is an error, and every
repair is reported with its line number.
"""

import html
import re
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.scrolling import Cue, remove_repeats

EXAMPLE = "`00:00:01.000 --> 00:00:03.500`"
TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d+))?"
ARROW = r"(?:[-=\u2010-\u2015\u2212][-=\u2010-\u2015\u2212 ]*(?:>|&gt;)|\u2192)"
"""`-->`, or what people and programs write for it."""
TIMING = re.compile(rf"\s*{TIME}\s*({ARROW})\s*{TIME}(?:\s.*)?")
NEARLY_TIMING = re.compile(rf"\s*\d+\s*:\s*\d.*{ARROW}.*")
NUMBER = re.compile(r"\s*\d+\s*")
COMMENT = re.compile(r"(?:NOTE|STYLE|REGION)(?:\s.*)?")
NEWLINE = re.compile(r"\r\n|\r|\n")
WORD_TIME = re.compile(rf"<{TIME}>")
# Only known tags are markup: `x < 5 and y > 3` is text. SubRip has `{\an8}`, too.
MARKUP = re.compile(
    r"</?(?:[bcisu]|ruby|rt|p|em|strong)(?:\.[^<>\s]*)?>|</?(?:v|lang|font|span)\b[^<>]*>"
    rf"|{WORD_TIME.pattern}|\{{\\[^{{}}]*\}}",
    re.IGNORECASE,
)
LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
HIGHLIGHT_END = re.compile(r"</(?:[bcisu]|font)>", re.IGNORECASE)

Repairs = dict[str, list[int]]
"""What was repaired -> the numbers of the lines."""


class Subtitles(NamedTuple):
    """The captions of a file, and what was repaired in it."""

    captions: CaptionList
    repairs: Repairs


class _Timing(NamedTuple):
    line: int  # its index
    start: float  # seconds
    end: float  # seconds


def parse_subtitles(text: str, name: str) -> Subtitles:
    """Returns the captions of a WebVTT or SubRip text, in file order.

    Args:
        name: the file, for messages.
    Raises:
        DataError: there are no subtitles, or a timing line is broken. Names the line.
    """
    is_vtt = text.startswith("WEBVTT")
    lines = NEWLINE.split(text)
    repairs: Repairs = defaultdict(list)
    timings = _find_timings(lines, is_vtt, name, repairs)
    if not timings and text.strip() and not is_vtt:
        raise DataError(f"{name}: must hold subtitles with lines like {EXAMPLE}, but has none.")
    cues = _Layout(lines, is_vtt, repairs).read_cues(timings)
    shown = remove_repeats([cue for cue in cues if cue.words])
    captions: CaptionList = {
        "start": [cue.start for cue in shown],
        "end": [cue.end for cue in shown],
        "text": [" ".join(cue.words) for cue in shown],
    }
    return Subtitles(captions, dict(repairs))


def _find_timings(lines: list[str], is_vtt: bool, name: str, repairs: Repairs) -> list[_Timing]:
    """Returns the timing lines; DataError names a broken one by its number."""
    timings = []
    is_text = False  # the line belongs to the text of a cue
    for index, line in enumerate(lines):
        if match := TIMING.fullmatch(line):
            fields = match.groups()
            timings.append(_Timing(index, _seconds(fields[:4]), _seconds(fields[5:])))
            if (arrow := fields[4]) != "-->":
                repairs[f"`{arrow}` read as `-->`"].append(index + 1)
            is_text = True
            continue
        # WebVTT forbids arrows in a text. A SubRip text may have one.
        is_entry = index > 0 and NUMBER.fullmatch(lines[index - 1])
        is_broken = "-->" in line and (is_vtt or not is_text)
        if is_broken or (NEARLY_TIMING.fullmatch(line) and (is_entry or not is_text)):
            raise DataError(
                f"{name}: line {index + 1} must read like {EXAMPLE}, but is {line.strip()!r}. "
                "Correct it."
            )
        is_text = is_text and bool(line.strip())
    return timings


def _seconds(fields: tuple[str | None, ...]) -> float:
    """Returns the seconds of the groups of `TIME`."""
    hours, minutes, seconds, fraction = (field or "0" for field in fields)
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{int(seconds)}.{fraction}")


class _Layout:
    """The lines of a file around its timing lines.

    The text of a cue is all that stands between its timing line and the next one, without comments
    and without the number or identifier of the next cue. Empty lines do not end it, because editors
    and converters insert and remove them.
    """

    def __init__(self, lines: list[str], is_vtt: bool, repairs: Repairs) -> None:
        self.lines = lines
        self.is_vtt = is_vtt
        self.repairs = repairs

    def read_cues(self, timings: list[_Timing]) -> list[Cue]:
        """Returns the cues with their text; it may be blank."""
        starts = [timing.line for timing in timings] + [len(self.lines)]
        is_numbered = self._read_preface(starts[0])
        cues = []
        for timing, end in zip(timings, starts[1:], strict=True):
            identifier = self._find_identifier(timing.line + 1, end, is_numbered)
            text_end = end if identifier is None else identifier
            if end < len(self.lines) and not self._is_empty(text_end - 1):
                self._report("entry without an empty line before it accepted", [text_end])
            if end == len(self.lines) and identifier is not None:
                self._report("number without a caption ignored", [identifier])
            shown = self._find_text(timing.line + 1, text_end)
            continued = [after for before, after in pairwise(shown) if after > before + 1]
            self._report("text after an empty line kept", continued)
            cues.append(_make_cue(timing, [self.lines[index] for index in shown]))
        return cues

    def _read_preface(self, end: int) -> bool:
        """Reads what comes before the first timing line. Returns True if the cues are numbered."""
        begin = 0
        if self.is_vtt:  # the header ends at the first empty line
            begin = next(filter(self._is_empty, range(end)), end)
        identifier = self._find_identifier(begin, end, is_numbered=True)
        ignored = self._find_text(begin, end if identifier is None else identifier)
        self._report("text before the first caption ignored", ignored)
        return identifier is not None and self._is_number(identifier)

    def _find_identifier(self, begin: int, end: int, is_numbered: bool) -> int | None:
        """Returns the line from `begin` to `end` that names the cue whose timing line is `end`.

        It is the last line with text: a number, or in WebVTT any text in front of the timing line.
        An empty line comes before it, unless the file has none.
        """
        last = next((i for i in reversed(range(begin, end)) if self.lines[i].strip()), None)
        if last is None:
            return None
        follows_empty = last == 0 or self._is_empty(last - 1)
        precedes_timing = last == end - 1 and end < len(self.lines)
        if self._is_number(last) and is_numbered:
            is_identifier = follows_empty or precedes_timing
        else:
            is_identifier = follows_empty and precedes_timing
            is_identifier &= self.is_vtt or self._is_number(last)
        return last if is_identifier else None

    def _find_text(self, begin: int, end: int) -> list[int]:
        """Returns the lines with text from `begin` to `end`, without comments."""
        found = []
        is_comment = False
        for index in range(begin, end):
            if self._is_empty(index):
                is_comment = False
                continue
            starts_block = self._is_empty(index - 1)
            if self.is_vtt and starts_block and COMMENT.fullmatch(self.lines[index]):
                is_comment = True
            if not is_comment:
                found.append(index)
        return found

    def _is_number(self, index: int) -> bool:
        return NUMBER.fullmatch(self.lines[index]) is not None

    def _is_empty(self, index: int) -> bool:
        """Returns True for an empty line. Lines of blanks belong to the window of a WebVTT cue."""
        line = self.lines[index]
        return not (line if self.is_vtt else line.strip())

    def _report(self, what: str, indices: list[int]) -> None:
        """Adds a repair of lines that have text."""
        if numbers := [index + 1 for index in indices if self.lines[index].strip()]:
            self.repairs[what] += numbers


def _make_cue(timing: _Timing, lines: list[str]) -> Cue:
    """Returns a cue with the words of its lines."""
    text = "\n".join(lines)
    # Only words from the second one of a line on have times.
    fresh = (
        match for match in WORD_TIME.finditer(text) if _seconds(match.groups()) >= timing.start
    )
    if first := next(fresh, None):
        new_from = len(_words(text[: first.start()])) - 1
    tag_ends = [match.end() for match in HIGHLIGHT_END.finditer(text)]
    highlight = len(_words(text[: tag_ends[-1]])) if tag_ends and not WORD_TIME.search(text) else 0
    shown = tuple(_words(line) for line in lines)
    return Cue(timing.start, timing.end, shown, max(new_from, 0) if first else None, highlight)


def _words(text: str) -> tuple[str, ...]:
    """Returns the words of a text without its markup."""
    return tuple(html.unescape(MARKUP.sub("", LINE_BREAK.sub(" ", text))).split())
