"""Reads the captions of a whole corpus, in file order or by video id, and converts corpora.

A corpus is a `.json` object {id: captions}, the released pickle with the same content, or a JSON
Lines file with a line {"id": .., "start": [..], "end": [..], "text": [..]} per video. MMPT writes
JSON Lines, because a single video can be read if the byte offset of its line is known.
"""

import codecs
import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from mmpt.errors import DataError
from mmpt.prepare.captions import caption_list
from mmpt.prepare.captions.caption_folder import find_caption_files, iter_caption_files
from mmpt.prepare.captions.caption_list import CaptionList, as_captions
from mmpt.prepare.captions.dedup import deduplicate
from mmpt.prepare.captions.json_object import iter_object
from mmpt.utils.artefact import Artefact, fingerprint
from mmpt.utils.io import (
    atomic_write,
    file_hash,
    load_plain_pickle,
    reading,
    remove_leftovers,
    writing,
)
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger, progress
from mmpt.utils.validation import validate

T = TypeVar("T")

logger = get_logger(__name__)

FORMAT = 1
BLOCK_BYTES = 1 << 20  # one megabyte, which the progress line counts
SUFFIXES = (".jsonl", ".json", ".pkl")  # in order of preference
MAX_LINE = 1 << 26
"""Bytes after which a line is cut. A large JSON object on one line would fill the memory."""


def check_suffix(path: Path) -> None:
    """Raises DataError unless `path` has one of `SUFFIXES`."""
    if path.is_dir():
        raise DataError(
            f"{path}: captions must be a file, but this is a folder. If it contains a caption file "
            f"per video, `mmpt dedup --input {path} --output {path}.jsonl` makes one file of them."
        )
    if path.suffix not in SUFFIXES:
        allowed = ", ".join(SUFFIXES)
        raise DataError(
            f"{path}: captions must be a {allowed} file, but this "
            f"{f'is `{path.suffix}`' if path.suffix else 'has no suffix'}."
        )


def find_corpus(path: str | Path) -> Path:
    """Returns the caption file `path` or, if it is missing, the same name with another suffix.

    Old YAMLs name the released pickle, but the existing file may have another form.

    Raises:
        DataError: no file with any suffix exists, or the suffix is unknown.
    """
    path = Path(path)
    check_suffix(path)
    others = [path.with_suffix(suffix) for suffix in SUFFIXES]
    for found in (path, *others):
        if found.is_file():
            return found
    names = " or ".join(other.name for other in others)
    raise DataError(
        f"{path}: no such file, nor {names}. Download the captions, or correct the path."
    )


def byte_blocks(path: Path) -> Iterator[bytes]:
    """Yields the bytes of a file in blocks of a megabyte, and logs the progress.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    with reading(path), open(path, "rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        num_blocks = math.ceil(num_bytes / BLOCK_BYTES)
        blocks: Iterator[bytes] = iter(lambda: file.read(BLOCK_BYTES), b"")
        if num_blocks > 1:  # a small file needs no progress line
            what = f"megabytes of {path.name} read"
            blocks = progress(blocks, num_blocks, what, logger)
        yield from blocks


def iter_corpus(path: Path) -> Iterator[tuple[str, CaptionList]]:
    """Yields (id, captions) of every video of a `.json`, `.jsonl` or `.pkl` file, in file order.

    Raises:
        DataError: the file is missing, broken or not UTF-8, has a video twice, or has captions of
            another form.
    """
    for video_id, entry in _check_unique(_iter_entries(path), path):
        where = f"{path}, video {video_id}"
        yield video_id, as_captions(entry, where)


def _iter_entries(path: Path) -> Iterator[tuple[str, Any]]:
    """Yields (id, entry) of every video of a file, in file order."""
    if path.suffix == ".json":
        text = _text_blocks(path)
        yield from iter_object(text, str(path))
    elif path.suffix == ".jsonl":
        for _, video_id, entry in _iter_lines(path):
            yield video_id, entry
    else:
        content = load_plain_pickle(path)
        remedy = "It must map video ids to captions. Make or download the file again."
        videos = validate(dict[str, Any], content, path, remedy)
        yield from videos.items()


def _check_unique(
    entries: Iterable[tuple[str, T]], path: Path
) -> Iterator[tuple[str, T]]:
    """Yields the entries (id, value) of a file. Raises DataError if an id is repeated."""
    numbers: dict[str, int] = {}
    for number, (video_id, value) in enumerate(entries, start=1):
        first = numbers.setdefault(video_id, number)
        if first != number:
            raise DataError(
                f"{path}: each video must occur once, but {video_id} is entry {first} and entry "
                f"{number}. Remove one of them."
            )
        yield video_id, value


def _text_blocks(path: Path) -> Iterator[str]:
    """Yields the text of a file in blocks. Raises DataError if it is not UTF-8."""
    try:
        yield from codecs.iterdecode(byte_blocks(path), "utf-8-sig")
    except UnicodeDecodeError as err:
        byte = err.object[err.start]
        raise DataError(
            f"{path}: must be UTF-8 text, but holds byte 0x{byte:02x} ({err.reason}). Convert it, "
            "for example with `iconv -f WINDOWS-1252 -t UTF-8`."
        ) from None


def write_corpus(path: Path, videos: Iterable[tuple[str, CaptionList]]) -> None:
    """Writes videos (id, captions) as JSON Lines, atomically. Texts that are not strings, such as
    NaN, are written as null.
    """
    # A lone surrogate cannot be encoded in UTF-8. The handler writes the escape sequence of JSON.
    with atomic_write(path, errors="backslashreplace") as file:
        for video_id, captions in videos:
            texts = [
                text if isinstance(text, str) else None for text in captions["text"]
            ]
            entry = {"id": video_id, **captions, "text": texts}
            line = json.dumps(entry, ensure_ascii=False)
            file.write(line + "\n")


def index_lines(path: Path) -> dict[str, int]:
    """Returns {id: byte offset of its line} of a JSON Lines file.

    Raises:
        DataError: the file is missing or broken, or has a video twice.
    """
    lines = _iter_lines(path)
    offsets = ((video_id, offset) for offset, video_id, _ in lines)
    return dict(_check_unique(offsets, path))


def read_line(file: IO[bytes], path: Path, offset: int) -> CaptionList:
    """Returns the captions of one line of a JSON Lines file.

    Args:
        file: the open file.
        path: its path, for messages.
        offset: the byte at which the line begins.
    """
    file.seek(offset)
    line = file.readline()
    video_id, entry = _parse_line(line, path, offset)
    return as_captions(entry, f"{path}, video {video_id}")


def _iter_lines(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Yields (byte offset, id, entry) of every line that is not blank."""
    offset = 0  # of the first line that is not complete yet
    rest = b""  # the part of this line that has been read
    for block in byte_blocks(path):
        unread = rest + block
        *lines, rest = unread.split(b"\n")
        for line in lines:
            if line.strip():
                video_id, entry = _parse_line(line, path, offset)
                yield offset, video_id, entry
            offset += len(line) + 1  # with the line break
        if len(rest) > MAX_LINE:
            break
    if rest.strip():
        video_id, entry = _parse_line(rest, path, offset)
        yield offset, video_id, entry


def _parse_line(line: bytes, path: Path, offset: int) -> tuple[str, Any]:
    """Returns (id, entry) of a line. Raises DataError if it is not an object with an `id`."""
    where = f"{path}: the line at byte {offset}"
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as err:  # ValueError: also if it is not UTF-8
        raise DataError(
            f"{where} is not JSON ({err}). Make the file again, or name it `.json` if it is one "
            "JSON object."
        ) from None
    video_id = entry.get("id") if isinstance(entry, dict) else None
    if not isinstance(video_id, str):
        raise DataError(f"{where} must be an object with an `id`, but is not.")
    return video_id, entry


def _check_paths(source: Path, output: Path) -> None:
    """Raises DataError unless a corpus at `source` can be converted to `output`."""
    if not source.is_dir():
        check_suffix(source)
    elif output.resolve().is_relative_to(source.resolve()):
        raise DataError(
            f"{output}: the output must be outside of {source}, whose caption files are read, but "
            "is in it. Name another with `--output`."
        )
    if output.suffix != ".jsonl":
        raise DataError(
            f"{output}: the output must be a .jsonl file, but this is `{output.suffix}`."
        )
    if output.resolve() == source.resolve():
        raise DataError(
            f"{output}: source and output must be two files, but are one. Name another with "
            "`--output`."
        )


def convert_corpus(
    source: Path, output: Path, *, dedup: bool = False, seed: int = 0
) -> None:
    """Writes the videos of `source` to `output`, unless an earlier run has done so.

    The stamp `X.made.json` next to `X.jsonl` holds the settings, the counts, and a fingerprint of
    the source and the settings. A second run finds a finished corpus by this fingerprint.

    Args:
        source: a `.json` object {id: captions}, a `.jsonl` file, the released `.pkl`, or a folder
            with a caption file per video, as for `iter_caption_files`.
        output: a `.jsonl` file.
        dedup: correct the times and de-duplicate. Otherwise, captions are written as they are.
        seed: seed of the generator that de-duplicates all videos in file order, as in the released
            code.
    Raises:
        DataError: the source is missing or broken or holds a video twice, or the output cannot be
            written.
    """
    _check_paths(source, output)
    settings = {
        "format": FORMAT,
        "change": "CaptionDedupProcessor" if dedup else None,
        "seed": seed if dedup else None,
    }
    mark = fingerprint(settings, _content_hash(source))
    lock = output.with_name(f".{output.name}.lock")
    with writing(output.parent), exclusive(lock, "converting captions"):
        artefact = Artefact(output.with_suffix(".made.json"), (output,))
        remove_leftovers(output.parent, {output.name, artefact.stamp.name})
        if artefact.finished(mark):
            logger.info("%s: already made from %s with these settings", output, source)
            return
        artefact.begin()
        counts = Counter(videos=0, captions=0, videos_without_captions=0)
        flaws = Counter(dict.fromkeys(caption_list.FLAWS, 0))
        is_folder = source.is_dir()
        videos = iter_caption_files(source) if is_folder else iter_corpus(source)
        if dedup:
            videos = _deduplicate_videos(videos, source, seed, flaws)
        write_corpus(output, _count_captions(videos, counts))
        artefact.finish(mark, **settings, **counts, fixed=flaws)
    caption_list.warn_of_flaws(flaws, source)
    num_videos = counts["videos"]
    num_without = counts["videos_without_captions"]
    if num_without:
        logger.warning(
            "%s: %d of %d videos have no caption", source, num_without, num_videos
        )
    logger.info("%s: %d videos, %d captions", output, num_videos, counts["captions"])


def _content_hash(source: Path) -> str:
    """Returns a hash of a corpus: of its file, or of the caption files of a folder."""
    if not source.is_dir():
        return file_hash(source)
    files = find_caption_files(source)
    return fingerprint([(name, file_hash(path)) for name, path in files.items()])


def _deduplicate_videos(
    videos: Iterable[tuple[str, CaptionList]],
    source: Path,
    seed: int,
    flaws: Counter[str],
) -> Iterator[tuple[str, CaptionList]]:
    """Yields the videos with corrected times and de-duplicated captions. Adds flaws to `flaws`."""
    draw = random.Random(seed).random
    for video_id, captions in videos:
        where = f"{source}, video {video_id}"
        captions, found = caption_list.clean_times(captions, where)
        flaws.update(found)
        yield video_id, deduplicate(captions, draw)


def _count_captions(
    videos: Iterable[tuple[str, CaptionList]], counts: Counter[str]
) -> Iterator[tuple[str, CaptionList]]:
    """Yields the videos, and counts them and their captions in `counts`."""
    for video_id, captions in videos:
        num_captions = len(captions["start"])
        counts["videos"] += 1
        counts["captions"] += num_captions
        if num_captions == 0:
            counts["videos_without_captions"] += 1
        yield video_id, captions
