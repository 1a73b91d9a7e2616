"""Reads the captions of one video: WebVTT, SubRip, WhisperX's JSON, or our own columns in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, as_captions, clean_times
from mmpt.prepare.captions.subtitles import parse_subtitles
from mmpt.prepare.captions.text_file import read_text
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

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
    captions = _with_text(parse(read_text(path), str(path)))
    captions, flaws = clean_times(captions, str(path))
    if flaws:
        logger.warning("%s: captions %s", path, flaws.describe())
    return captions


def _from_json(text: str, name: str) -> CaptionList:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:  # ValueError: also a number of thousands of digits
        raise DataError(f"{name}: not valid JSON ({err}); make or download it again.") from None
    if isinstance(value, dict) and "segments" in value:
        return _from_segments(value["segments"], name)
    if _is_corpus(value):
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


def _from_segments(segments: Any, name: str) -> CaptionList:
    if not isinstance(segments, list) or not all(isinstance(one, dict) for one in segments):
        raise DataError(
            f"{name}: `segments` must be a list of objects with `start`, `end` and `text`, but is "
            "not."
        )
    columns = {
        "start": [one.get("start") for one in segments],
        "end": [one.get("end") for one in segments],
        "text": [one.get("text") for one in segments],
    }
    return as_captions(columns, name)


def _with_text(captions: CaptionList) -> CaptionList:
    """Returns the captions that have text. White space in a text becomes single spaces."""
    kept: CaptionList = {"start": [], "end": [], "text": []}
    rows = zip(captions["start"], captions["end"], captions["text"], strict=True)
    for start, end, text in rows:
        if isinstance(text, str) and text.strip():
            kept["start"].append(start)
            kept["end"].append(end)
            kept["text"].append(" ".join(text.split()))
    return kept
