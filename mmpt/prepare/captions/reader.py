"""Reads the captions of one video from WebVTT, SubRip, WhisperX's JSON, or JSON with columns."""

import re
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import (
    CaptionList,
    as_captions,
    clean_times,
    describe_flaws,
    from_rows,
    iter_rows,
)
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_tag
from mmpt.prepare.captions.subtitles import parse_subtitles
from mmpt.prepare.captions.timing import Repairs
from mmpt.utils.io import parse_json, read_text, split_lines
from mmpt.utils.validation import validate

CAPTION_SUFFIXES = (".vtt", ".srt", ".json")  # in order of preference
HEADER_LANGUAGE = re.compile(r"language:[ \t]*(\S+)", re.IGNORECASE)
MAX_NUMBERS = 5  # line numbers that a note lists


def read_captions(path: str | Path) -> tuple[CaptionList, list[str]]:
    """Reads the captions of one video.

    Markup is removed, and blank captions are left out. Overlapping captions are kept.

    Args:
        path: a file with one of `CAPTION_SUFFIXES`, in UTF-8, or in UTF-16 with a byte order mark.
            It holds WebVTT or SubRip subtitles, or JSON: {"segments": [{"start", "end", "text"},
            ..]} as WhisperX writes it, or {"start": [..], "end": [..], "text": [..]}.
    Returns:
        The captions, sorted by start, with 0 <= start <= end in seconds, and notes about repaired
        lines and times.
    Raises:
        DataError: the file is missing, is not text, or has another form.
    """
    path = Path(path)
    content = read_text(path, "captions")
    repairs: Repairs = {}
    if path.suffix.lower() == ".json":
        found = _from_json(content, str(path))
    else:
        found, repairs = parse_subtitles(content, str(path))
    kept = []
    num_other = 0  # texts that are not strings
    for start, end, text in iter_rows(found):
        if not isinstance(text, str):
            num_other += 1
            continue
        words = text.split()
        if words:
            kept.append((start, end, " ".join(words)))
    captions, flaws = clean_times(from_rows(kept), str(path))
    notes = []
    for repair, numbers in repairs.items():
        notes.append(f"{repair} ({_line_numbers(numbers)})")
    if num_other:
        notes.append(f"{num_other} captions whose text is not a string (dropped)")
    if flaws.total():
        notes.append(describe_flaws(flaws))
    return captions, notes


def _line_numbers(numbers: list[int]) -> str:
    """Returns a text such as `line 3`, or `lines 3, 9, 12, 40, 61 and 7 more`."""
    noun = "lines" if len(numbers) > 1 else "line"
    listed = ", ".join(map(str, numbers[:MAX_NUMBERS]))
    num_more = len(numbers) - MAX_NUMBERS
    if num_more > 0:
        return f"{noun} {listed} and {num_more} more"
    return f"{noun} {listed}"


def _from_json(content: str, name: str) -> CaptionList:
    """Returns the captions of a JSON text, with `segments` or with columns."""
    value = parse_json(content, name)
    if not isinstance(value, dict) or "segments" not in value:
        return as_captions(value, name)
    remedy = "`segments` must be a list of objects with `start`, `end` and `text`."
    segments = validate(list[dict[str, Any]], value["segments"], name, remedy)
    rows = []
    for segment in segments:
        rows.append((segment.get("start"), segment.get("end"), segment.get("text")))
    return from_rows(rows)


def read_language(path: str | Path) -> Language:
    """Returns the language that a caption file's content names.

    WebVTT has `Language: en` in its header, and WhisperX writes `"language": "en"` to its JSON. The
    result is `UNKNOWN` if the file names no language or cannot be read.
    """
    path = Path(path)
    try:
        content = read_text(path, "captions")
        is_json = path.suffix.lower() == ".json"
        name = (
            _language_in_json(content, path)
            if is_json
            else _language_in_header(content)
        )
    except DataError:  # `read_captions` reports it
        return UNKNOWN
    language = parse_tag(name)
    if name and not language:  # OpenAI's API writes `english`
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        code = TO_LANGUAGE_CODE.get(name.lower(), "")
        language = parse_tag(code)
    return language or UNKNOWN


def _language_in_json(content: str, path: Path) -> str:
    """Returns the language that a JSON text names; empty if it names none."""
    value = parse_json(content, path)
    if not isinstance(value, dict):
        return ""
    return str(value.get("language") or "")


def _language_in_header(content: str) -> str:
    """Returns the language that the header of a WebVTT text names; empty if it names none."""
    lines = split_lines(content)
    if not lines or not lines[0].startswith("WEBVTT"):
        return ""
    for line in lines:
        # The header ends with an empty line, or with the first timing line.
        if not line or "-->" in line:
            break
        match = HEADER_LANGUAGE.match(line)
        if match:
            return match[1]
    return ""
