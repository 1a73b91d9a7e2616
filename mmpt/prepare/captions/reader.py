"""Reads the captions of one video from WebVTT, SubRip, WhisperX's JSON, or JSON with columns."""

import re
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, as_captions, clean_times, describe_flaws
from mmpt.prepare.captions.language import UNKNOWN, Language, parse_tag
from mmpt.prepare.captions.subtitles import Repairs, parse_subtitles
from mmpt.utils.io import parse_json, read_text, split_lines
from mmpt.utils.validation import validate

CAPTION_SUFFIXES = (".vtt", ".srt", ".json")  # in order of preference
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
    text = read_text(path, "captions")
    repairs: Repairs = {}
    if path.suffix.lower() == ".json":
        found = _from_json(text, str(path))
    else:
        found, repairs = parse_subtitles(text, str(path))
    kept: CaptionList = {"start": [], "end": [], "text": []}
    for start, end, text in zip(found["start"], found["end"], found["text"], strict=True):
        if isinstance(text, str) and text.strip():
            kept["start"].append(start)
            kept["end"].append(end)
            kept["text"].append(" ".join(text.split()))
    captions, flaws = clean_times(kept, str(path))
    notes = [f"{what} ({_line_numbers(numbers)})" for what, numbers in repairs.items()]
    num_other = sum(not isinstance(text, str) for text in found["text"])
    if num_other:
        notes.append(f"{num_other} captions whose text is not a string (dropped)")
    return captions, [*notes, *describe_flaws(flaws)]


def _line_numbers(numbers: list[int]) -> str:
    """Returns a text such as `line 3`, or `lines 3, 9, 12, 40, 61 and 7 more`."""
    first = ", ".join(map(str, numbers[:MAX_NUMBERS]))
    more = f" and {len(numbers) - MAX_NUMBERS} more" if len(numbers) > MAX_NUMBERS else ""
    return f"line{'s' if len(numbers) > 1 else ''} {first}{more}"


def read_language(path: str | Path) -> Language:
    """Returns the language that a caption file's content names.

    WebVTT has `Language: en` in its header, and WhisperX writes `"language": "en"` to its JSON. The
    result is `UNKNOWN` if the file names no language or cannot be read.
    """
    path = Path(path)
    try:
        text = read_text(path, "captions")
        value = parse_json(text, path) if path.suffix.lower() == ".json" else None
    except DataError:  # `read_captions` reports it
        return UNKNOWN
    if isinstance(value, dict):
        name = str(value.get("language") or "")
    else:
        # The header ends with an empty line, or with the first timing line.
        header = "\n".join(split_lines(text)).partition("\n\n")[0].partition("-->")[0]
        match = re.search(r"^language:[ \t]*(\S+)", header, re.IGNORECASE | re.MULTILINE)
        name = match[1] if match and header.startswith("WEBVTT") else ""
    language = parse_tag(name)
    if name and not language:  # OpenAI's API writes `english`
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        language = parse_tag(TO_LANGUAGE_CODE.get(name.lower(), ""))
    return language or UNKNOWN


def _from_json(text: str, name: str) -> CaptionList:
    """Returns the captions of a JSON text, with `segments` or with columns."""
    value = parse_json(text, name)
    if isinstance(value, dict) and "segments" in value:
        remedy = "`segments` must be a list of objects with `start`, `end` and `text`."
        segments = validate(list[dict[str, Any]], value["segments"], name, remedy)
        value = {
            "start": [segment.get("start") for segment in segments],
            "end": [segment.get("end") for segment in segments],
            "text": [segment.get("text") for segment in segments],
        }
    return as_captions(value, name)
