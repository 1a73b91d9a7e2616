"""Reads files in blocks, as bytes or as UTF-8 text. A byte order mark selects UTF-16."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mmpt.errors import DataError
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

BLOCK_BYTES = 1 << 20  # so that the progress line counts megabytes


class Digest(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None:
        """Takes the next bytes of the file."""


def byte_blocks(path: str | Path, digest: Digest | None = None) -> Iterator[bytes]:
    """Yields a file's bytes a megabyte at a time and logs the progress.

    Args:
        digest: takes every block, so that hashing needs no second pass over the file.
    Raises:
        DataError: the file is missing or cannot be read.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            num_blocks = -(-path.stat().st_size // BLOCK_BYTES)
            blocks: Iterator[bytes] = iter(lambda: file.read(BLOCK_BYTES), b"")
            if num_blocks > 1:  # small files need no progress line
                blocks = progress(blocks, num_blocks, f"megabytes of {path.name} read", logger)
            for block in blocks:
                if digest is not None:
                    digest.update(block)
                yield block
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Correct the path.") from None
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror}).") from err


def text_blocks(path: str | Path, digest: Digest | None = None) -> Iterator[str]:
    """Yields a file's text a block at a time.

    Raises:
        DataError: missing, unreadable, or not UTF-8 (nor UTF-16 with a byte order mark). Names the
            first wrong byte.
    """
    decoder: codecs.IncrementalDecoder | None = None
    num_read = 0
    try:
        for block in byte_blocks(path, digest):
            decoder = decoder or codecs.getincrementaldecoder(_encoding(block))()
            num_read += len(block)
            yield decoder.decode(block)
        if decoder is not None:
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as err:
        raise not_utf8(path, err, num_read - len(err.object)) from None


def read_text(path: str | Path) -> str:
    """Returns the whole text of a small file; DataError as in `text_blocks`."""
    return "".join(text_blocks(path))


def not_utf8(path: str | Path, err: UnicodeDecodeError, offset: int) -> DataError:
    """Returns the error that names the wrong byte.

    Args:
        offset: where `err.object` begins in the file.
    """
    found = f"0x{err.object[err.start]:02x}" if err.start < len(err.object) else "missing"
    return DataError(
        f"{path}: must be UTF-8 text, but byte {offset + err.start} is {found} ({err.reason}). "
        "Convert it, for example with `iconv -f WINDOWS-1252 -t UTF-8`."
    )


def _encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"
