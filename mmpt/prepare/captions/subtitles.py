"""Parses WebVTT and SubRip subtitles, including damaged ones.

Why not a library: pysubs2 1.8 reads a text line with two word times as a timing line (YouTube's
automatic subtitles have such lines) and appends WebVTT's comments and identifiers to the caption
before them. webvtt-py 0.6 silently drops a cue if its timing line is broken, or if a SubRip cue has
no number. Here, nothing is lost silently: a broken timing line is an error, and every repair is
reported with its line number.

The parser works in three steps:

1. Find the timing lines (timing.py).
2. Assign the lines between them to cues, as text, number or comment (`_CueReader`).
3. Remove the repeated text of subtitles that scroll (scrolling.py).
"""

from collections import defaultdict
from itertools import pairwise

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, from_rows
from mmpt.prepare.captions.cue import Cue, make_cue
from mmpt.prepare.captions.scrolling import remove_repeats
from mmpt.prepare.captions.timing import (
    COMMENT,
    EXAMPLE,
    NUMBER,
    Repairs,
    Timing,
    find_timings,
)
from mmpt.utils.io import split_lines

END_OF_FILE = "\x1a"  # of MS-DOS


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
    timings = find_timings(lines, is_vtt, name, repairs)
    if not timings and text.strip() and not is_vtt:
        raise DataError(
            f"{name}: must hold subtitles with lines like {EXAMPLE}, but has none."
        )
    cues = _CueReader(lines, timings, is_vtt, repairs).read_cues()
    with_words = [cue for cue in cues if cue.words]
    rows = []
    for cue in remove_repeats(with_words):
        text = " ".join(cue.words)
        rows.append((cue.start, cue.end, text))
    return from_rows(rows), dict(repairs)


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
        self, lines: list[str], timings: list[Timing], is_vtt: bool, repairs: Repairs
    ) -> None:
        self.lines = lines
        self.timings = timings
        self.is_vtt = is_vtt
        self.repairs = repairs
        # In WebVTT, a line of blanks belongs to a cue, unless the file has no other empty lines.
        self.keeps_blanks = is_vtt and "" in lines[:-1]
        self.numbers: list[int | None] = []  # the number above every timing line
        begin = 0
        for timing in timings:
            self.numbers.append(self._number_above(begin, timing.line))
            begin = timing.line
        self.is_numbered = self._has_increasing_numbers()

    def _has_increasing_numbers(self) -> bool:
        """Returns whether the first cue has a number, or whether most numbers increase by one."""
        if self.numbers and self.numbers[0] is not None:
            return True
        num_increments = 0
        for number, following in pairwise(self.numbers):
            if number is not None and following == number + 1:
                num_increments += 1
        num_pairs = len(self.numbers) - 1
        return num_pairs > 1 and 2 * num_increments >= num_pairs

    def read_cues(self) -> list[Cue]:
        """Returns the cues with their texts, which may be blank."""
        # The timing lines divide the file into blocks. The first block has no cue.
        num_lines = len(self.lines)
        ends = [timing.line for timing in self.timings]
        ends.append(num_lines)
        self._skip_preface(ends[0])
        cues = []
        for timing, end in zip(self.timings, ends[1:], strict=True):
            # A block is the text of a cue, followed by the identifier of the next cue.
            begin = timing.line + 1
            identifier = self._find_identifier(begin, end)
            text_end = end if identifier is None else identifier
            if end == num_lines:
                if identifier is not None:
                    self._report("number without a caption ignored", identifier)
            elif not self._is_empty(text_end - 1):
                self._report("entry without an empty line before it accepted", text_end)
            text_lines = self._find_text(begin, text_end)
            for previous, index in pairwise(text_lines):
                if index > previous + 1:
                    self._report("text after an empty line kept", index)
            texts = [self.lines[index] for index in text_lines]
            if timing.text:
                texts.insert(0, timing.text)
            cues.append(make_cue(timing, texts))
        return cues

    def _skip_preface(self, end: int) -> None:
        """Reports text before the first timing line, whose index is `end`."""
        begin = 0
        if self.is_vtt:  # the header ends at the first empty line
            while begin < end and not self._is_empty(begin):
                begin += 1
        identifier = self._find_identifier(begin, end)
        text_end = end if identifier is None else identifier
        for index in self._find_text(begin, text_end):
            self._report("text before the first caption ignored", index)

    def _find_identifier(self, begin: int, end: int) -> int | None:
        """Returns the line that identifies the cue whose timing line is `end`, or None.

        The candidate is the last line with text from `begin` to `end`, if it is a number or, in
        WebVTT, any text directly above the timing line. It may instead belong to the text of the
        cue above. The empty lines around it, and whether the file is numbered, decide this.
        """
        last = self._last_text(begin, end)
        if last is None:
            return None
        number = self._number_in(last)
        is_number = number is not None
        follows_empty = last == 0 or self._is_empty(last - 1)
        precedes_timing = last == end - 1
        if end == len(self.lines):
            # A file that was cut off ends with the number of the next entry.
            last_number = self.numbers[-1] if self.numbers else None
            is_next = last_number is not None and number == last_number + 1
            is_identifier = is_next and follows_empty
        elif is_number and self.is_numbered:
            # In a numbered file, a number next to an empty line or a timing line is an identifier.
            is_identifier = follows_empty or precedes_timing
        elif not follows_empty or not precedes_timing:
            # In other files, an identifier must be between an empty line and the timing line.
            is_identifier = False
        elif is_number:
            is_identifier = True
        elif begin <= self.timings[0].line:
            # Only WebVTT has identifiers that are not numbers.
            is_identifier = self.is_vtt
        else:
            # If the cue above has no other text, the line is taken for its text.
            has_text = len(self._find_text(begin, last)) > 0
            is_identifier = self.is_vtt and has_text
        return last if is_identifier else None

    def _find_text(self, begin: int, end: int) -> list[int]:
        """Returns the lines from `begin` to `end` that have text and are not comments."""
        found = []
        is_comment = False
        for index in range(begin, end):
            if self._is_empty(index):
                is_comment = False
                continue
            if self._begins_comment(index):
                is_comment = True
            if not is_comment:
                found.append(index)
        return found

    def _begins_comment(self, index: int) -> bool:
        """Returns whether a comment of WebVTT begins in a line. It follows an empty line."""
        if not self.is_vtt or not self._is_empty(index - 1):
            return False
        line = self.lines[index]
        return COMMENT.fullmatch(line) is not None

    def _number_above(self, begin: int, end: int) -> int | None:
        """Returns the number in the last line with text from `begin` to `end`, or None."""
        last = self._last_text(begin, end)
        return None if last is None else self._number_in(last)

    def _number_in(self, index: int) -> int | None:
        """Returns the number that a line consists of, or None."""
        line = self.lines[index]
        return int(line) if NUMBER.fullmatch(line) else None

    def _last_text(self, begin: int, end: int) -> int | None:
        """Returns the last line with text from `begin` to `end`, or None."""
        for index in reversed(range(begin, end)):
            if self.lines[index].strip():
                return index
        return None

    def _is_empty(self, index: int) -> bool:
        """Returns whether a line is empty, or has only blanks that do not count as text."""
        line = self.lines[index]
        if not self.keeps_blanks:
            line = line.strip()
        return not line

    def _report(self, repair: str, index: int) -> None:
        """Reports a repair of a line, unless it has no text."""
        if self.lines[index].strip():
            self.repairs[repair].append(index + 1)
