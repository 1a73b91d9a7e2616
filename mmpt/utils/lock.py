"""One process at a time in a folder: advisory locks that the kernel drops when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@contextmanager
def exclusive(path: str | Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` (made when it is not there, never removed), waiting for whoever holds it.

    Args:
        what: what is going on, for the line that says why this process waits.
    """
    with _opened(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s: another process holds it (%s); waiting for its end", path, what)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def held_if_free(path: str | Path) -> Iterator[bool]:
    """Hold the lock file `path` unless somebody else does, and say whether; a file system without locks says yes.

    Raises:
        OSError: the file cannot be made.
    """
    with _opened(path) as handle:
        yield _take(handle)


@contextmanager
def _opened(path: str | Path) -> Iterator[int]:
    """Open a lock file; its lock ends with it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return not isinstance(err, BlockingIOError)
    return True
