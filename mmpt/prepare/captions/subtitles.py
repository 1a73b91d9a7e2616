"""Parses WebVTT and SubRip subtitles, including damaged ones.

Why not a library: pysubs2 1.8 reads a text line with two word times as a timing line (YouTube's
automatic subtitles have such lines) and appends WebVTT's comments and identifiers to the caption
before them. webvtt-py 0.6 silently drops a cue if its timing line is broken, or if a SubRip cue has
no number. Here, nothing is lost silently: a broken timing line is an error, and every repair is
reported with its line number.

The parser works in three steps:

1. Find the timing lines (`_find_timings`).
2. Assign the lines between them to cues, as text, number or comment (`_CueReader`).
3. Remove the repeated text of subtitles that scroll (scrolling.py).
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
# Spaces within a time, a comma or a dot, and missing leading zeros are accepted.
TIME = r"(?:\d{1,6} ?: ?)?\d{1,2} ?: ?\d{1,2}(?: ?[.,] ?\d{1,9})?"
ARROW = r"(?:[-=\u2010-\u2015\u2212][-=\u2010-\u2015\u2212 ]{0,9}(?:>{1,2}|&gt;)|\u2192)"
"""`-->`, or another arrow that people and programs write instead of it."""
TIMING = re.compile(rf"\s*(?P<start>{TIME})\s*(?P<arrow>{ARROW})\s*(?P<end>{TIME})(?P<rest>\s.*)?")
SETTINGS = re.compile(r"(?:\s+[A-Za-z]\w*:\S*)*\s*")  # WebVTT's `align:start`, SubRip's `X1:10`
# A line that was probably meant as a timing line: a time and an arrow, or two times.
NEARLY_TIMING = re.compile(rf"\s*\d+\s*:\s*\d.*{ARROW}.*|\s*{TIME}\D{{1,9}}{TIME}(?:\s.*)?")
NUMBER = re.compile(r"\s*\d{1,9}\s*")
COMMENT = re.compile(r"(?:NOTE|STYLE|REGION|WEBVTT)(?:\s.*)?")  # concatenated files have headers
END_OF_FILE = "\x1a"  # of MS-DOS
WORD_TIME = re.compile(rf"<({TIME})>")
# Only known tags are markup, because `x < 5 and y > 3` is text. `{\an8}` is markup of SubRip.
NAMES = "[bcisu]|ruby|rt|p|em|strong|strike|small|big"
MARKUP = re.compile(
    rf"</?(?:{NAMES})(?:\.[^<>\s]*)? ?/?>|</?(?:v|lang|font|span)\b[^<>]*>"
    rf"|{WORD_TIME.pattern}|\{{\\[^{{}}]*\}}",
    re.IGNORECASE,
)
LINE_BREAK = re.compile(r"<br\s*/?>|\\[Nh]")
HIGHLIGHT_END = re.compile(r"</(?:[bcisu]|font)>", re.IGNORECASE)

Repairs = dict[str, list[int]]
"""Kind of repair -> numbers of the repaired lines, from 1."""


class _Timing(NamedTuple):
    """A timing line."""

    line: int  # index of the line, from 0
    start: float  # seconds
    end: float  # seconds
    text: str  # text of the cue that begins in the same line; usually empty


def parse_subtitles(text: str, name: str) -> tuple[CaptionList, Repairs]:
    """Returns the captions of a WebVTT or SubRip text, in file order, and the repairs.

    Args:
        text: the content of the file.
        name: name of the file, for messages.
    Raises:
        DataError: there are no subtitles, or a timing line is broken. The message names the line.
    """
    lines = split_lines(text.replace(END_OF_FILE, ""))
    is_vtt = bool(lines) and lines[0].startswith("WEBVTT")
    repairs: Repairs = defaultdict(list)
    timings = _find_timings(lines, is_vtt, name, repairs)
    if not timings and text.strip() and not is_vtt:
        raise DataError(f"{name}: must hold subtitles with lines like {EXAMPLE}, but has none.")
    cues = _CueReader(lines, timings, is_vtt, repairs).read_cues()
    shown = remove_repeats([cue for cue in cues if cue.words])
    captions: CaptionList = {
        "start": [cue.start for cue in shown],
        "end": [cue.end for cue in shown],
        "text": [" ".join(cue.words) for cue in shown],
    }
    return captions, dict(repairs)


def _find_timings(lines: list[str], is_vtt: bool, name: str, repairs: Repairs) -> list[_Timing]:
    """Returns the timing lines. Raises DataError with the line number if one is broken.

    A line of text may look like a timing line. Whether it is one depends on the lines around it:
    whether the line above is a number, and whether the line belongs to the text of a cue, which
    ends with an empty line.
    """
    timings = []
    is_text = False  # the line belongs to the text of a cue
    is_comment = False  # the line belongs to a comment of WebVTT
    for index, line in enumerate(lines):
        has_number = index > 0 and NUMBER.fullmatch(lines[index - 1])
        match = TIMING.fullmatch(line)
        # With another arrow, as in `1:30 -> 2:00`, a line within a text is text.
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
        # A line that is not a timing line is broken if it contains an arrow where no text may have
        # one (WebVTT forbids arrows in texts, SubRip does not), or if it nearly is a timing line.
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
    """Returns the seconds of a time that matches `TIME`."""
    *hours, minutes, seconds = time.replace(" ", "").replace(",", ".").split(":")
    num_minutes = int(minutes)
    if hours:
        num_minutes += 60 * int(hours[0])
    return 60 * num_minutes + float(seconds)


class _CueReader:
    """Reads the cues of a file whose timing lines are known.

    The text of a cue is everything between its timing line and the next one, except for comments
    and the number or identifier of the next cue. Empty lines do not end a text, because editors and
    converters insert and remove them.

    Args:
        lines: the lines of the file.
        timings: the timing lines.
        is_vtt: the file is WebVTT, not SubRip.
        repairs: repairs are added here.
    """

    def __init__(
        self, lines: list[str], timings: list[_Timing], is_vtt: bool, repairs: Repairs
    ) -> None:
        self.lines = lines
        self.timings = timings
        self.is_vtt = is_vtt
        self.repairs = repairs
        # In WebVTT, a line of blanks belongs to a cue, unless the file has no other empty lines.
        self.keeps_blanks = is_vtt and "" in lines[:-1]
        # A file is numbered if its first cue has a number, or if most numbers increase by one.
        starts = [0, *(timing.line for timing in timings)]
        self.numbers = [self._number_above(begin, end) for begin, end in pairwise(starts)]
        num_increments = 0
        for number, following in pairwise(self.numbers):
            num_increments += number is not None and following == number + 1
        has_first = bool(timings) and self.numbers[0] is not None
        self.is_numbered = has_first or 2 * num_increments >= len(timings) - 1 > 1

    def read_cues(self) -> list[Cue]:
        """Returns the cues with their texts, which may be blank."""
        # Blocks of lines: before the first timing line, and after each timing line.
        begins = [0, *(timing.line + 1 for timing in self.timings)]
        ends = [*(timing.line for timing in self.timings), len(self.lines)]
        if self.is_vtt:  # the header ends at the first empty line
            begins[0] = next(filter(self._is_empty, range(ends[0])), ends[0])
        cues = []
        for block, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            # A block is the text of a cue, followed by the identifier of the next cue.
            identifier = self._find_identifier(begin, end)
            text_end = end if identifier is None else identifier
            text_lines = self._find_text(begin, text_end)
            if block == 0:
                self._report("text before the first caption ignored", text_lines)
                continue
            if end < len(self.lines) and not self._is_empty(text_end - 1):
                self._report("entry without an empty line before it accepted", [text_end])
            if end == len(self.lines) and identifier is not None:
                self._report("number without a caption ignored", [identifier])
            continued = [after for before, after in pairwise(text_lines) if after > before + 1]
            self._report("text after an empty line kept", continued)
            timing = self.timings[block - 1]
            texts = [timing.text] if timing.text else []
            texts += [self.lines[index] for index in text_lines]
            cues.append(_make_cue(timing, texts))
        return cues

    def _find_identifier(self, begin: int, end: int) -> int | None:
        """Returns the line that identifies the cue whose timing line is `end`, or None.

        It is the last line with text from `begin` to `end`, if this is a number or, in WebVTT, any
        text directly above the timing line. It may also be the text of the cue above. This is
        decided by the empty lines around it and by whether the file is numbered.
        """
        last = self._last_text(begin, end)
        if last is None:
            return None
        is_number = NUMBER.fullmatch(self.lines[last]) is not None
        follows_empty = last == 0 or self._is_empty(last - 1)
        if end == len(self.lines):
            # A file that was cut off ends with the number of the next entry.
            if not is_number or not follows_empty:
                return None
            previous = int(self.lines[last]) - 1
            return last if previous in self.numbers[-1:] else None
        precedes_timing = last == end - 1
        # In a numbered file, a number next to an empty line or a timing line is an identifier.
        if is_number and self.is_numbered:
            return last if follows_empty or precedes_timing else None
        # In other files, an identifier must stand between an empty line and the timing line.
        if not (follows_empty and precedes_timing and (is_number or self.is_vtt)):
            return None
        # If it is not a number, it is rather the text of the cue above if that has no other text.
        is_preface = begin <= self.timings[0].line
        has_text = is_preface or bool(self._find_text(begin, last))
        return last if is_number or has_text else None

    def _find_text(self, begin: int, end: int) -> list[int]:
        """Returns the lines from `begin` to `end` that have text and are not comments."""
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
        """Returns the number in the last line with text from `begin` to `end`, or None."""
        last = self._last_text(begin, end)
        if last is None:
            return None
        match = NUMBER.fullmatch(self.lines[last])
        return int(match[0]) if match else None

    def _last_text(self, begin: int, end: int) -> int | None:
        """Returns the last line with text from `begin` to `end`, or None."""
        for index in reversed(range(begin, end)):
            if self.lines[index].strip():
                return index
        return None

    def _is_empty(self, index: int) -> bool:
        """Returns whether a line is empty, or has only blanks that do not count as text."""
        line = self.lines[index]
        return not (line if self.keeps_blanks else line.strip())

    def _report(self, repair: str, indices: list[int]) -> None:
        """Reports a repair of some lines. Lines without text are left out."""
        numbers = [index + 1 for index in indices if self.lines[index].strip()]
        if numbers:
            self.repairs[repair] += numbers


def _make_cue(timing: _Timing, lines: list[str]) -> Cue:
    """Returns the cue of a timing line and its text lines."""
    text = "\n".join(lines)
    # Find the first word that is new: the first one with a time within the cue.
    new_from = None
    for match in WORD_TIME.finditer(text):
        if _seconds(match[1]) >= timing.start:
            before = text[: match.start()]
            new_from = len(_words(before))
            # The first word of a new line usually has no time. Then this is the second new word.
            if _words(before.rpartition("\n")[2]):
                new_from -= 1
            break
    # Find the end of the last highlighted word. Files with word times have no highlights.
    highlight = 0
    tag_ends = [match.end() for match in HIGHLIGHT_END.finditer(text)]
    if tag_ends and not WORD_TIME.search(text):
        highlight = len(_words(text[: tag_ends[-1]]))
    lines_of_words = tuple(_words(line) for line in lines)
    return Cue(timing.start, timing.end, lines_of_words, new_from, highlight)


def _words(text: str) -> tuple[str, ...]:
    """Returns the words of a text without its markup."""
    without_breaks = LINE_BREAK.sub(" ", text)
    without_markup = MARKUP.sub("", without_breaks)
    return tuple(html.unescape(without_markup).split())
