"""Locks that keep two processes from working in the same folder.

A lock is released when its holder ends, even if it is killed.
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmpt.errors import DataError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""Error numbers of file systems without locks. Some network file systems are of this kind."""


@contextmanager
def exclusive(
    path: str | Path, what: str, refusal: str | None = None
) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` during the block.

    The file is created if it is missing, and is not removed. On a file system without locks, a
    warning is logged and the block runs without one.

    Args:
        what: the activity that the lock protects, for messages.
        refusal: message of the error if another process holds the lock. None: wait until that
            process releases it.
    Raises:
        DataError: another process holds the lock, and `refusal` is given.
        OSError: the file cannot be created.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as err:
        if refusal is not None:
            raise DataError(refusal) from err
        logger.warning(
            "%s is locked by another process (%s); waiting until it is released",
            path,
            what,
        )
        lock.acquire()
    except OSError as err:
        if err.errno not in NO_LOCKS:
            raise
        logger.warning(
            "%s: this file system has no locks; run one process at a time (%s)",
            path,
            what,
        )
    try:
        yield
    finally:
        lock.release()


def is_held(path: str | Path) -> bool | None:
    """Returns whether a process holds the lock on the file `path`. Changes nothing.

    None means that it is unknown: the file is missing or cannot be read, or the file system or
    the operating system does not have these locks.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # not on Windows

    try:
        # A file that is open for reading can have a shared lock. Closing the file releases it.
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
