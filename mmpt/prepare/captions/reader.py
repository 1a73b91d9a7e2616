"""Reads the captions of one video, whoever wrote them: YouTube's .vtt, .srt, WhisperX's .json, or our own columns."""

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
    """Return the captions of one video: texts without markup or blank ones, sorted, 0 <= start <= end.

    Captions that overlap are kept. What had to be mended is counted in one warning.

    Args:
        path: WebVTT or SubRip subtitles, or JSON: {"segments": [{"start", "end", "text"}, ..]} as WhisperX writes it,
            or {"start": [..], "end": [..], "text": [..]}. UTF-8, or UTF-16 with a byte order mark.
    Raises:
        DataError: missing, not text (names the byte), or of no such form.
    """
    path = Path(path)
    if path.suffix.lower() not in CAPTION_SUFFIXES:
        raise DataError(f"{path}: captions must be a {', '.join(CAPTION_SUFFIXES)} file, but this is `{path.suffix}`.")
    text = read_text(path)
    parse = _from_json if path.suffix.lower() == ".json" else parse_subtitles
    captions, flaws = clean_times(_with_text(parse(text, str(path))), str(path))
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
    if isinstance(value, dict) and "text" not in value and any(isinstance(entry, dict) for entry in value.values()):
        raise DataError(
            f"{name}: must hold the captions of one video, but holds a corpus of {len(value)}. Give it to "
            "`python -m mmpt.processors.dedupprocessor --input` instead."
        )
    return as_captions(value, name)


def _from_segments(segments: Any, name: str) -> CaptionList:
    if not isinstance(segments, list) or not all(isinstance(segment, dict) for segment in segments):
        raise DataError(f"{name}: `segments` must be a list of objects with `start`, `end` and `text`, but is not.")
    columns = {column: [segment.get(column) for segment in segments] for column in ("start", "end", "text")}
    return as_captions(columns, name)


def _with_text(captions: CaptionList) -> CaptionList:
    """Return the captions that say something, white space in them made single spaces."""
    rows = zip(captions["start"], captions["end"], captions["text"], strict=True)
    said = [(start, end, " ".join(text.split())) for start, end, text in rows if isinstance(text, str) and text.strip()]
    return {"start": [row[0] for row in said], "end": [row[1] for row in said], "text": [row[2] for row in said]}
