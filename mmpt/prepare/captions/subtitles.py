"""Parses WebVTT and SubRip subtitles, including damaged ones.

Why not a library: pysubs2 1.8 reads a text line with two word times as a timing line (YouTube's
automatic subtitles have such lines) and appends WebVTT's comments and identifiers to the caption
before them. webvtt-py 0.6 silently drops a cue if its timing line is broken, or if a SubRip cue has
no number. Here, nothing is lost silently: a broken timing line is an error, and every repair is
reported with its line number.
"""

import html
import re
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.scrolling import Cue, remove_repeats
from mmpt.utils.io import split_lines

EXAMPLE = "`00:00:01.000 --> 00:00:03.500`"
TIME = r"(?:\d{1,6} ?: ?)?\d{1,2} ?: ?\d{1,2}(?: ?[.,] ?\d{1,9})?"
ARROW = r"(?:[-=\u2010-\u2015\u2212][-=\u2010-\u2015\u2212 ]{0,9}(?:>{1,2}|&gt;)|\u2192)"
"""`-->`, or what people and programs write instead of it."""
TIMING = re.compile(rf"\s*(?P<start>{TIME})\s*(?P<arrow>{ARROW})\s*(?P<end>{TIME})(?P<rest>\s.*)?")
SETTINGS = re.compile(r"(?:\s+[A-Za-z]\w*:\S*)*\s*")  # WebVTT's `align:start`, SubRip's `X1:10`
NEARLY_TIMING = re.compile(rf"\s*\d+\s*:\s*\d.*{ARROW}.*|\s*{TIME}\D{{1,9}}{TIME}(?:\s.*)?")
NUMBER = re.compile(r"\s*\d{1,9}\s*")
COMMENT = re.compile(r"(?:NOTE|STYLE|REGION|WEBVTT)(?:\s.*)?")  # joined files repeat the header
END_OF_FILE = "\x1a"  # MS-DOS
WORD_TIME = re.compile(rf"<({TIME})>")
# Only known tags are markup: `x < 5 and y > 3` is text. SubRip has `{\an8}`, too.
NAMES = "[bcisu]|ruby|rt|p|em|strong|strike|small|big"
MARKUP = re.compile(
    rf"</?(?:{NAMES})(?:\.[^<>\s]*)? ?/?>|</?(?:v|lang|font|span)\b[^<>]*>"
    rf"|{WORD_TIME.pattern}|\{{\\[^{{}}]*\}}",
    re.IGNORECASE,
)
LINE_BREAK = re.compile(r"<br\s*/?>|\\[Nh]")
HIGHLIGHT_END = re.compile(r"</(?:[bcisu]|font)>", re.IGNORECASE)

Repairs = dict[str, list[int]]
"""Line numbers by the kind of repair."""


class _Timing(NamedTuple):
    line: int  # index of the line
    start: float  # seconds
    end: float  # seconds
    text: str  # of the caption, if it begins in the same line


def parse_subtitles(text: str, name: str) -> tuple[CaptionList, Repairs]:
    """Returns the captions of a WebVTT or SubRip text, in file order, and what was repaired.

    Args:
        name: the file, for messages.
    Raises:
        DataError: there are no subtitles, or a timing line is broken. Names the line.
    """
    lines = split_lines(text.replace(END_OF_FILE, ""))
    is_vtt = bool(lines) and lines[0].startswith("WEBVTT")
    repairs: Repairs = defaultdict(list)
    timings = _find_timings(lines, is_vtt, name, repairs)
    if not timings and text.strip() and not is_vtt:
        raise DataError(f"{name}: must hold subtitles with lines like {EXAMPLE}, but has none.")
    cues = _Layout(lines, timings, is_vtt, repairs).read_cues()
    shown = remove_repeats([cue for cue in cues if cue.words])
    captions: CaptionList = {
        "start": [cue.start for cue in shown],
        "end": [cue.end for cue in shown],
        "text": [" ".join(cue.words) for cue in shown],
    }
    return captions, dict(repairs)


def _find_timings(lines: list[str], is_vtt: bool, name: str, repairs: Repairs) -> list[_Timing]:
    """Returns the timing lines. DataError names the number of a broken one."""
    timings = []
    is_text = False  # the line belongs to the text of a cue
    is_comment = False
    for index, line in enumerate(lines):
        has_number = index > 0 and NUMBER.fullmatch(lines[index - 1])
        match = TIMING.fullmatch(line)
        # `1:30 -> 2:00` may be text.
        if match and (match["arrow"] == "-->" or has_number or not is_text):
            rest = match["rest"] or ""
            text = "" if SETTINGS.fullmatch(rest) else rest
            timings.append(_Timing(index, _seconds(match["start"]), _seconds(match["end"]), text))
            if text:
                repairs["text in a timing line kept"].append(index + 1)
            if match["arrow"] != "-->":
                repairs[f"`{match['arrow']}` read as `-->`"].append(index + 1)
            is_text = True
            continue
        is_comment = bool(line) and (is_comment or (is_vtt and bool(COMMENT.fullmatch(line))))
        # WebVTT forbids arrows in a text. A SubRip text may have one.
        is_broken = "-->" in line and (is_vtt or not is_text)
        is_broken |= bool(NEARLY_TIMING.fullmatch(line) and (has_number or not is_text))
        if is_broken and not is_comment:
            raise DataError(
                f"{name}: line {index + 1} must read like {EXAMPLE}, but is {line.strip()!r}. "
                "Correct it."
            )
        is_text = is_text and bool(line.strip())
    return timings


def _seconds(time: str) -> float:
    """Returns the seconds of a text that `TIME` matches."""
    *hours, minutes, seconds = time.replace(" ", "").replace(",", ".").split(":")
    return int(hours[0] if hours else 0) * 3600 + int(minutes) * 60 + float(seconds)


class _Layout:
    """The lines of a file around its timing lines.

    The text of a cue is everything between its timing line and the next one, except comments and
    the number or identifier of the next cue. Empty lines do not end it, because editors and
    converters insert and remove them.
    """

    def __init__(
        self, lines: list[str], timings: list[_Timing], is_vtt: bool, repairs: Repairs
    ) -> None:
        self.lines = lines
        self.timings = timings
        self.is_vtt = is_vtt
        self.repairs = repairs
        # In WebVTT, lines of blanks belong to a cue, unless the file has no other empty lines.
        self.keeps_blanks = is_vtt and "" in lines[:-1]
        # A file is numbered if its first cue has a number, or if most numbers rise by one.
        starts = [0, *(timing.line for timing in timings)]
        self.numbers = [self._number_above(*between) for between in pairwise(starts)]
        num_rises = sum(a is not None and b == a + 1 for a, b in pairwise(self.numbers))
        has_first = bool(timings) and self.numbers[0] is not None
        self.is_numbered = has_first or 2 * num_rises >= len(timings) - 1 > 1

    def read_cues(self) -> list[Cue]:
        """Returns the cues with their text; it may be blank."""
        begins = [0, *(timing.line + 1 for timing in self.timings)]
        ends = [*(timing.line for timing in self.timings), len(self.lines)]
        if self.is_vtt:  # the header ends at the first empty line
            begins[0] = next(filter(self._is_empty, range(ends[0])), ends[0])
        cues = []
        for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            name = self._find_name(begin, end)
            text_end = end if name is None else name
            shown = self._find_text(begin, text_end)
            if place == 0:
                self._report("text before the first caption ignored", shown)
                continue
            if end < len(self.lines) and not self._is_empty(text_end - 1):
                self._report("entry without an empty line before it accepted", [text_end])
            if end == len(self.lines) and name is not None:
                self._report("number without a caption ignored", [name])
            continued = [after for before, after in pairwise(shown) if after > before + 1]
            self._report("text after an empty line kept", continued)
            timing = self.timings[place - 1]
            texts = [timing.text] if timing.text else []
            cues.append(_make_cue(timing, texts + [self.lines[index] for index in shown]))
        return cues

    def _find_name(self, begin: int, end: int) -> int | None:
        """Returns the line from `begin` to `end` that names the cue whose timing line is `end`.

        It is the last line with text: a number, or in WebVTT any text in front of the timing line.
        """
        last = self._last_text(begin, end)
        if last is None:
            return None
        is_number = NUMBER.fullmatch(self.lines[last]) is not None
        follows_empty = last == 0 or self._is_empty(last - 1)
        if end == len(self.lines):
            # A file that was cut off ends with the number of the next entry.
            is_next = is_number and int(self.lines[last]) - 1 in self.numbers[-1:]
            return last if is_next and follows_empty else None
        precedes_timing = last == end - 1
        if is_number and self.is_numbered:
            return last if follows_empty or precedes_timing else None
        if not (follows_empty and precedes_timing and (is_number or self.is_vtt)):
            return None
        # If the cue above has no other text, the line is its text.
        is_preface = begin <= self.timings[0].line
        has_text = is_preface or bool(self._find_text(begin, last))
        return last if is_number or has_text else None

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

    def _number_above(self, begin: int, end: int) -> int | None:
        """Returns the number in the last line with text from `begin` to `end`."""
        last = self._last_text(begin, end)
        is_number = last is not None and NUMBER.fullmatch(self.lines[last])
        return int(is_number[0]) if is_number else None

    def _last_text(self, begin: int, end: int) -> int | None:
        """Returns the last line with text from `begin` to `end`."""
        return next((i for i in reversed(range(begin, end)) if self.lines[i].strip()), None)

    def _is_empty(self, index: int) -> bool:
        line = self.lines[index]
        return not (line if self.keeps_blanks else line.strip())

    def _report(self, what: str, indices: list[int]) -> None:
        """Adds a repair of lines that have text."""
        if numbers := [index + 1 for index in indices if self.lines[index].strip()]:
            self.repairs[what] += numbers


def _make_cue(timing: _Timing, lines: list[str]) -> Cue:
    """Returns a cue with the words of its lines."""
    text = "\n".join(lines)
    new_from = None
    for match in WORD_TIME.finditer(text):
        if _seconds(match[1]) >= timing.start:
            # The first word of a new text mostly has no time.
            before = _words(text[: match.start()])
            is_second = bool(_words(text[: match.start()].rpartition("\n")[2]))
            new_from = len(before) - is_second
            break
    tag_ends = [match.end() for match in HIGHLIGHT_END.finditer(text)]
    highlight = len(_words(text[: tag_ends[-1]])) if tag_ends and not WORD_TIME.search(text) else 0
    shown = tuple(_words(line) for line in lines)
    return Cue(timing.start, timing.end, shown, new_from, highlight)


def _words(text: str) -> tuple[str, ...]:
    """Returns the words of a text without its markup."""
    return tuple(html.unescape(MARKUP.sub("", LINE_BREAK.sub(" ", text))).split())
