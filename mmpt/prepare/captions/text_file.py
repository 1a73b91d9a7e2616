"""Reads files in blocks, as bytes or as UTF-8 text. A byte order mark selects UTF-16."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from mmpt.errors import DataError
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

BLOCK_BYTES = 1 << 20  # so that the progress line counts megabytes


def byte_blocks(path: Path) -> Iterator[bytes]:
    """Yields a file's bytes a megabyte at a time and logs the progress.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            num_blocks = -(-os.fstat(file.fileno()).st_size // BLOCK_BYTES)
            blocks: Iterator[bytes] = iter(lambda: file.read(BLOCK_BYTES), b"")
            if num_blocks > 1:  # small files need no progress line
                blocks = progress(blocks, num_blocks, f"megabytes of {path.name} read", logger)
            yield from blocks
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Correct the path.") from None
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror}).") from err


def text_blocks(path: Path) -> Iterator[str]:
    """Yields a file's text a block at a time.

    Raises:
        DataError: missing, unreadable, or not UTF-8 (nor UTF-16 with a byte order mark). Names the
            first wrong byte.
    """
    decoder: codecs.IncrementalDecoder | None = None
    num_read = 0
    try:
        for block in byte_blocks(path):
            if decoder is None:
                is_utf16 = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                decoder = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")()
            num_read += len(block)
            yield decoder.decode(block)
        if decoder is not None:
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as err:
        raise not_utf8(path, err, num_read - len(err.object)) from None


def not_utf8(path: Path, err: UnicodeDecodeError, offset: int) -> DataError:
    """Returns the error that names the wrong byte.

    Args:
        offset: where `err.object` begins in the file.
    """
    found = f"0x{err.object[err.start]:02x}" if err.start < len(err.object) else "missing"
    return DataError(
        f"{path}: must be UTF-8 text, but byte {offset + err.start} is {found} ({err.reason}). "
        "Convert it, for example with `iconv -f WINDOWS-1252 -t UTF-8`."
    )
