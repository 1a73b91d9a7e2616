"""Reads the captions of one video: WebVTT, SubRip, WhisperX's JSON, or our own columns in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, as_captions, clean_times, warn_of_flaws
from mmpt.prepare.captions.subtitles import parse_subtitles
from mmpt.prepare.captions.text_file import text_blocks

CAPTION_SUFFIXES = (".vtt", ".srt", ".json")


def read_captions(path: str | Path) -> CaptionList:
    """Returns the captions of one video, sorted by start, with 0 <= start <= end.

    Texts have no markup, and blank ones are left out. Captions that overlap are kept. Corrected
    times are counted in one warning.

    Args:
        path: WebVTT or SubRip subtitles, or JSON: {"segments": [{"start", "end", "text"}, ..]} as
            WhisperX writes it, or {"start": [..], "end": [..], "text": [..]}. UTF-8, or UTF-16 with
            a byte order mark.
    Raises:
        DataError: missing, not text (names the byte), or of another form.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CAPTION_SUFFIXES:
        raise DataError(
            f"{path}: captions must be a {', '.join(CAPTION_SUFFIXES)} file, but this is "
            f"`{path.suffix}`."
        )
    parse = _from_json if suffix == ".json" else parse_subtitles
    found = parse("".join(text_blocks(path)), str(path))
    kept: CaptionList = {"start": [], "end": [], "text": []}
    for start, end, text in zip(found["start"], found["end"], found["text"], strict=True):
        if isinstance(text, str) and text.strip():
            kept["start"].append(start)
            kept["end"].append(end)
            kept["text"].append(" ".join(text.split()))
    captions, flaws = clean_times(kept, str(path))
    warn_of_flaws(flaws, path)
    return captions


def _from_json(text: str, name: str) -> CaptionList:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:  # ValueError: also a number of thousands of digits
        raise DataError(f"{name}: not valid JSON ({err}); make or download it again.") from None
    if isinstance(value, dict) and "segments" in value:
        segments = value["segments"]
        if not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
            raise DataError(
                f"{name}: `segments` must be a list of objects with `start`, `end` and `text`, but "
                "is not."
            )
        value = {
            "start": [one.get("start") for one in segments],
            "end": [one.get("end") for one in segments],
            "text": [one.get("text") for one in segments],
        }
    elif _is_corpus(value):
        raise DataError(
            f"{name}: must hold the captions of one video, but holds a corpus of {len(value)}. "
            "Give it to `mmpt dedup --input` instead."
        )
    return as_captions(value, name)


def _is_corpus(value: Any) -> bool:
    """Returns True if `value` maps video ids to captions."""
    if not isinstance(value, dict) or "text" in value:
        return False
    return any(isinstance(entry, dict) for entry in value.values())
