"""The captions of a whole corpus, read in file order or by video id.

A corpus is a `.json` object {id: captions}, the released pickle of the same form, or JSON Lines:
one line {"id": .., "start": [..], "end": [..], "text": [..]} per video. JSON Lines is the form that
we write, because a video can be read from the byte where its line begins.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, as_captions
from mmpt.prepare.captions.json_object import iter_object
from mmpt.prepare.captions.text_file import Digest, byte_blocks, not_utf8, text_blocks
from mmpt.utils.io import load_plain_pickle

SUFFIXES = (".jsonl", ".json", ".pkl")  # in order of preference
MAX_LINE = 1 << 26  # bytes
ID_FIRST = re.compile(rb'\s*{\s*"id"\s*:\s*("(?:[^"\\]|\\.)*")')
"""The beginning of a line whose first key is `id`; group 1 is the id as a JSON string."""


def find_corpus(path: str | Path) -> Path:
    """Returns the caption file `path`, or else the file next to it with another suffix.

    Old YAMLs name the released pickle; the file that is there may be of another form.

    Raises:
        DataError: there is no such file in any form, or the suffix is unknown.
    """
    path = Path(path)
    check_suffix(path)
    for found in (path, *(path.with_suffix(suffix) for suffix in SUFFIXES)):
        if found.is_file():
            return found
    names = " or ".join(path.with_suffix(suffix).name for suffix in SUFFIXES)
    raise DataError(
        f"{path}: no such file, nor {names}. Download the captions, or correct the path."
    )


def check_suffix(path: Path) -> None:
    """Raises DataError unless `path` has the suffix of a corpus."""
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"{path}: captions must be a {', '.join(SUFFIXES)} file, but this is `{path.suffix}`."
        )


def iter_corpus(
    path: str | Path, digest: Digest | None = None
) -> Iterator[tuple[str, CaptionList]]:
    """Yields (id, captions) of every video of a `.json`, `.jsonl` or `.pkl` file, in file order.

    Args:
        digest: takes the file's bytes.
    Raises:
        DataError: missing, broken, not UTF-8, or a video's captions are of another form.
    """
    path = Path(path)
    for video_id, value in _entries(path, digest):
        if not isinstance(video_id, str):
            raise DataError(f"{path}: video ids must be text, but one is {video_id!r}.")
        yield video_id, as_captions(value, f"{path}, video {video_id}")


def _entries(path: Path, digest: Digest | None) -> Iterator[tuple[Any, Any]]:
    if path.suffix == ".json":
        yield from iter_object(text_blocks(path, digest), str(path))
    elif path.suffix == ".jsonl":
        for offset, line in iter_lines(path, digest):
            yield _parse_line(line, path, offset)
    else:
        if digest is not None:
            for _ in byte_blocks(path, digest):
                pass
        videos = load_plain_pickle(path)
        if not isinstance(videos, dict):
            raise DataError(
                f"{path}: must map video ids to captions, but holds a {type(videos).__name__}."
            )
        yield from videos.items()


def write_line(file: IO[str], video_id: str, captions: CaptionList) -> None:
    """Appends one video to a JSON Lines file. A text that is NaN is written as null."""
    text = [text if isinstance(text, str) else None for text in captions["text"]]
    line = {"id": video_id, "start": captions["start"], "end": captions["end"], "text": text}
    try:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except UnicodeEncodeError:  # half a surrogate pair: JSON can escape it, UTF-8 cannot encode it
        file.write(json.dumps(line) + "\n")


def iter_lines(path: Path, digest: Digest | None = None) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, line) of every line that is not blank.

    Raises:
        DataError: missing, unreadable, or a line is longer than `MAX_LINE`.
    """
    offset = 0
    rest = b""
    for block in byte_blocks(path, digest):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            if line.strip():
                yield offset, line
            offset += len(line) + 1
        if len(rest) > MAX_LINE:
            raise DataError(
                f"{path}: the line at byte {offset} must be one video, but has more than "
                f"{MAX_LINE >> 20} MB. If this is one JSON object, name it `.json`."
            )
    if rest.strip():
        yield offset, rest


def _parse_line(line: bytes, path: Path, offset: int) -> tuple[str, Any]:
    """Returns (id, entry) of a line; DataError when it is no entry."""
    try:
        entry = json.loads(line)
    except UnicodeDecodeError as err:
        raise not_utf8(path, err, offset) from None
    except (ValueError, RecursionError) as err:  # ValueError: also a number of thousands of digits
        raise DataError(
            f"{path}: the line at byte {offset} is not JSON ({err}). Make the file again."
        ) from None
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise DataError(
            f"{path}: the line at byte {offset} must be an object with an `id`, but is not."
        )
    return entry["id"], entry


class CaptionIndex:
    """The byte at which every video of a JSON Lines file begins."""

    def __init__(self, path: str | Path):
        """Reads through the file once.

        Raises:
            DataError: missing, broken, or a video is in it twice.
        """
        path = Path(path)
        digest = hashlib.sha256()
        self._offsets: dict[str, int] = {}
        for offset, line in iter_lines(path, digest):
            video_id = _id_of(line, path, offset)
            first = self._offsets.setdefault(video_id, offset)
            if first != offset:
                raise DataError(
                    f"{path}: a video must be there once, but {video_id} is at bytes {first} and "
                    f"{offset}. Remove one of them."
                )
        self.sha256 = digest.hexdigest()
        """Hash of the file's bytes."""

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the byte offset of each id's line, int64 [len(ids)]; -1 where there is none."""
        offsets = (self._offsets.get(video_id, -1) for video_id in ids)
        return np.fromiter(offsets, dtype=np.int64, count=len(ids))


def read_entry(file: IO[bytes], path: Path, offset: int, video_id: str) -> CaptionList:
    """Returns the captions of the line at `offset` of an open JSON Lines file.

    Raises:
        DataError: the line is broken, or is another video's (the file was changed meanwhile).
    """
    file.seek(offset)
    found, entry = _parse_line(file.readline(), path, offset)
    if found != video_id:
        raise DataError(
            f"{path}: video {video_id} must be at byte {offset}, but {found} is. Was the file "
            "changed? Run the command again."
        )
    return as_captions(entry, f"{path}, video {video_id}")


def _id_of(line: bytes, path: Path, offset: int) -> str:
    """Returns the id of a line. Its captions are parsed only if the id is not the first key."""
    if match := ID_FIRST.match(line):
        with suppress(ValueError):  # explained by `_parse_line`
            return str(json.loads(match[1]))
    return _parse_line(line, path, offset)[0]
