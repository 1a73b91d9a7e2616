"""Locks that keep two processes out of one folder. They end with their holder, even if it is
killed.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmpt.errors import DataError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""The errors of file systems without locks, as some network file systems are."""


@contextmanager
def exclusive(path: str | Path, what: str, refusal: str | None = None) -> Iterator[None]:
    """Holds the lock file `path` during the block. The file is made if it is missing, and stays.

    On a file system without locks, logs a warning and continues.

    Args:
        what: the activity that the lock protects, for messages.
        refusal: the error if another process holds the lock; None: wait for its end.
    Raises:
        DataError: `refusal`.
        OSError: the file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as err:
        if refusal is not None:
            raise DataError(refusal) from err
        logger.warning("%s: another process holds it (%s); waiting for its end", path, what)
        lock.acquire()
    except OSError as err:
        if err.errno not in NO_LOCKS:
            raise
        logger.warning(
            "%s: this file system has no locks; run one process at a time (%s)", path, what
        )
    try:
        yield
    finally:
        lock.release()
