"""Writes a caption corpus of any form as JSON Lines, in one pass.

`X.made.json`, next to `X.jsonl`, holds the fingerprint of source and settings, the settings and the
counts. A second run finds a finished corpus by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import NO_FLAWS, CaptionList, clean_times
from mmpt.prepare.captions.corpus import check_suffix, iter_corpus, write_line
from mmpt.prepare.captions.text_file import byte_blocks
from mmpt.utils.artefact import Artefact, fingerprint
from mmpt.utils.io import atomic_write, remove_leftovers, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

FORMAT = 1
CORPUS_SUFFIX = ".jsonl"


Change = Callable[[CaptionList], CaptionList]


def convert_corpus(
    source: str | Path, output: str | Path, change: Change | None = None, *, seed: int = 0
) -> None:
    """Writes the videos of `source` to `output`, unless an earlier run has done so.

    Args:
        source: `.json` {id: captions}, `.jsonl`, or the released `.pkl`.
        output: a `.jsonl` file.
        change: is called with every video's captions, in file order, and returns what is written.
            Times are corrected first. None means that captions are written as they are.
        seed: the seed of `change`. It is part of the fingerprint.
    Raises:
        DataError: the source is missing or broken or holds a video twice, or the output cannot be
            written.
    """
    source, output = Path(source), Path(output)
    _check_names(source, output)
    lock = output.with_name(f".{output.name}.lock")
    with writing(output.parent), exclusive(lock, "converting captions"):
        artefact = Artefact(output.with_suffix(".made.json"), (output,))
        remove_leftovers(output.parent, {output.name, artefact.note.name})
        settings = {
            "format": FORMAT,
            "change": type(change).__name__ if change else None,
            "seed": seed if change else None,
        }
        if artefact.read() and artefact.finished(fingerprint(settings, _hash_of(source))):
            logger.info("%s: already made from %s with these settings", output, source)
            return
        artefact.begin()
        digest = hashlib.sha256()
        with atomic_write(output) as file:
            counts = _write_videos(file, iter_corpus(source, digest), source, change)
        artefact.finish(fingerprint(settings, digest.hexdigest()), **settings, **counts)
    logger.info("%s: %d videos, %d captions", output, counts["videos"], counts["captions"])


def _write_videos(
    file: IO[str],
    videos: Iterator[tuple[str, CaptionList]],
    source: Path,
    change: Change | None,
) -> dict[str, Any]:
    """Writes all videos and returns their counts."""
    num_captions = num_without = 0
    flaws = NO_FLAWS
    entries: dict[str, int] = {}  # id -> number of its entry
    for number, (video_id, captions) in enumerate(videos, start=1):
        if (first := entries.setdefault(video_id, number)) != number:
            raise DataError(
                f"{source}: a video must be there once, but {video_id} is entry {first} and entry "
                f"{number}. Remove one of them."
            )
        if change is not None:
            captions, found = clean_times(captions, f"{source}, video {video_id}")
            if found:
                flaws += found
            captions = change(captions)
        write_line(file, video_id, captions)
        num_captions += len(captions["start"])
        num_without += not captions["start"]
    if flaws:
        logger.warning("%s: captions %s", source, flaws.describe())
    if num_without:
        logger.warning("%s: %d of %d videos have no caption", source, num_without, len(entries))
    return {
        "videos": len(entries),
        "captions": num_captions,
        "videos_without_captions": num_without,
        "mended": dataclasses.asdict(flaws),
    }


def _check_names(source: Path, output: Path) -> None:
    """Raises DataError unless `source` can be converted to `output`."""
    check_suffix(source)
    if not source.is_file():
        raise DataError(f"{source}: no such file. Correct the path.")
    if output.suffix != CORPUS_SUFFIX:
        raise DataError(
            f"{output}: the output must be a {CORPUS_SUFFIX} file, but this is `{output.suffix}`."
        )
    if output.exists() and output.samefile(source):
        raise DataError(
            f"{output}: source and output must be two files, but are one. Name another with "
            "`--output`."
        )


def _hash_of(source: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    for _ in byte_blocks(source, digest):
        pass
    return digest.hexdigest()
