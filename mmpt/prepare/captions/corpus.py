"""The captions of a whole corpus: streamed from JSON, JSON Lines or the released pickles, and read by id.

Our own form is JSON Lines, a video a line, {"id": .., "start": [..], "end": [..], "text": [..]}: it is written and read
in one pass, and a video is found by the byte where its line begins. Pickle, the released form, has neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList, as_captions
from mmpt.prepare.captions.json_stream import stream_object
from mmpt.prepare.captions.text_file import Digest, byte_blocks, not_utf8, text_blocks
from mmpt.utils.io import load_plain_pickle

SUFFIXES = (".jsonl", ".json", ".pkl")  # in order of preference
LINE_START = b'{"id": "'  # of a line as we write it


def find_corpus(path: str | Path) -> Path:
    """Return the caption file `path`, or else the file beside it of that name in another form, as in old YAMLs.

    Raises:
        DataError: there is none of them, or the form is unknown.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: captions must be a {', '.join(SUFFIXES)} file, but this is `{path.suffix}`.")
    for found in (path, *(path.with_suffix(suffix) for suffix in SUFFIXES)):
        if found.is_file():
            return found
    names = " or ".join(path.with_suffix(suffix).name for suffix in SUFFIXES)
    raise DataError(f"{path}: no such file, nor {names}. Download the captions, or correct the path.")


def iter_corpus(path: str | Path, digest: Digest | None = None) -> Iterator[tuple[str, CaptionList]]:
    """Yield (id, captions) of every video of a `.json`, `.jsonl` or `.pkl` file, in file order.

    Args:
        digest: is fed the file's bytes.
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
        yield from stream_object(text_blocks(path, digest), str(path))
    elif path.suffix == ".jsonl":
        for offset, line in iter_lines(path, digest):
            yield _parse_line(line, path, offset)
    else:
        if digest is not None:
            for block in byte_blocks(path):
                digest.update(block)
        videos = load_plain_pickle(path)
        if not isinstance(videos, dict):
            raise DataError(f"{path}: must map video ids to captions, but holds a {type(videos).__name__}.")
        yield from videos.items()


def write_line(file: IO[str], video_id: str, captions: CaptionList) -> None:
    """Append one video to a JSON Lines file; a text that is NaN is written as null."""
    text = [text if isinstance(text, str) else None for text in captions["text"]]
    line = {"id": video_id, "start": captions["start"], "end": captions["end"], "text": text}
    try:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
        file.write(json.dumps(line) + "\n")


def iter_lines(path: Path, digest: Digest | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line) of every line that is not blank."""
    offset, rest = 0, [b""]
    for block in byte_blocks(path, digest):
        lines = block.split(b"\n")
        if len(lines) == 1:
            rest.append(block)
            continue
        lines[0] = b"".join([*rest, lines[0]])
        rest = [lines.pop()]
        for line in lines:
            if line.strip():
                yield offset, line
            offset += len(line) + 1
    if last := b"".join(rest).strip():
        yield offset, last


def _parse_line(line: bytes, path: Path, offset: int) -> tuple[str, Any]:
    """Return (id, entry) of a line; DataError when it is no entry."""
    try:
        entry = json.loads(line)
    except UnicodeDecodeError as err:
        raise not_utf8(path, err, offset) from None
    except (ValueError, RecursionError) as err:  # ValueError: also a number of thousands of digits
        raise DataError(f"{path}: the line at byte {offset} is not JSON ({err}). Make the file again.") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise DataError(f"{path}: the line at byte {offset} must be an object with an `id`, but is not.")
    return entry["id"], entry


class CaptionIndex:
    """Where every video of a JSON Lines file begins: 16 bytes a video, whatever its id and captions."""

    def __init__(self, path: str | Path):
        """Read through the file once.

        Raises:
            DataError: missing, broken, or a video is in it twice.
        """
        self.path = Path(path)
        digest = hashlib.sha256()
        hashes, offsets = bytearray(), bytearray()
        for offset, line in iter_lines(self.path, digest):
            hashes += hash_id(_id_of(line, self.path, offset))
            offsets += offset.to_bytes(8, "little")
        self.sha256 = digest.hexdigest()
        """Hash of the file's bytes."""
        offset_N = np.frombuffer(offsets, dtype="<i8")
        if twice := repeats(hashes):
            self._report_repeat(len(twice), *(int(offset_N[place]) for place in twice[0]))
        hash_N = np.frombuffer(hashes, dtype="<u8")
        order_N = np.argsort(hash_N, kind="stable")
        self._hash_N = hash_N[order_N]
        self._offset_N = offset_N[order_N]

    def __len__(self) -> int:
        return len(self._hash_N)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """Return the byte offset of each id's line, int64 [len(ids)]; -1 where there is none."""
        if not len(self):
            return np.full(len(ids), -1, dtype=np.int64)
        wanted = np.frombuffer(b"".join(map(hash_id, ids)), dtype="<u8")
        place = np.minimum(np.searchsorted(self._hash_N, wanted), len(self) - 1)
        return np.where(self._hash_N[place] == wanted, self._offset_N[place], -1)

    def _report_repeat(self, num_repeats: int, first: int, second: int) -> None:
        with open(self.path, "rb") as file:
            file.seek(first)
            video_id, _ = _parse_line(file.readline(), self.path, first)
        raise DataError(
            f"{self.path}: a video must be there once, but {video_id} is at bytes {first} and {second} "
            f"({num_repeats} such in all). Remove one of them."
        )


def read_entry(file: IO[bytes], path: Path, offset: int, video_id: str) -> CaptionList:
    """Return the captions of the line at `offset` of an open JSON Lines file.

    Raises:
        DataError: the line is broken, or not of this video (the file was changed meanwhile).
    """
    file.seek(offset)
    found, entry = _parse_line(file.readline(), path, offset)
    if found != video_id:
        raise DataError(f"{path}: video {video_id} must be at byte {offset}, but {found} is. Was the file changed?")
    return as_captions(entry, f"{path}, video {video_id}")


def _id_of(line: bytes, path: Path, offset: int) -> str:
    """Return the id of a line without parsing its captions, where the line begins as we write it."""
    if line.startswith(LINE_START):
        raw = line[len(LINE_START) : line.find(b'"', len(LINE_START))]
        if b"\\" not in raw:
            try:
                return raw.decode()
            except UnicodeDecodeError as err:
                raise not_utf8(path, err, offset + len(LINE_START)) from None
    return _parse_line(line, path, offset)[0]


def hash_id(video_id: str) -> bytes:
    """Return 8 bytes that stand for an id; 1.2 million ids collide with a chance of 1 in 25 million."""
    return hashlib.blake2b(video_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def repeats(hashes: bytes | bytearray) -> list[tuple[int, int]]:
    """Return (first, second) place of every repeated hash; `hashes` are those of `hash_id`, one after another."""
    hash_N = np.frombuffer(hashes, dtype="<u8")
    sorted_N = np.sort(hash_N)
    if (sorted_N[1:] != sorted_N[:-1]).all():
        return []
    order_N = np.argsort(hash_N, kind="stable")
    twice = np.flatnonzero(hash_N[order_N[1:]] == hash_N[order_N[:-1]])
    return sorted((int(order_N[place]), int(order_N[place + 1])) for place in twice)
