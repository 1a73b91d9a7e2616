"""A file that is not whole yet: `<name>.part` with a note of what it is part of, held by one process at a time."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from mmpt.errors import DataError, UserError
from mmpt.utils.http_range import Version
from mmpt.utils.io import read_json, write_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class DownloadError(UserError):
    """A file cannot be had, or is not the one that it should be."""


class PartFile:
    """`<target>.part` and its note `<target>.part.json`; used as a context, which keeps both for the next run.

    Every byte is in the file when `append` returns, so a run may be killed at any moment.
    """

    def __init__(self, target: Path):
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def __enter__(self) -> PartFile:
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as err:
            raise DownloadError(f"{self.path}: cannot be written ({err.strerror}); give another `--root`.") from err
        try:
            self._lock()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours() and not self.size:
            self.path.unlink()
            self._note.unlink(missing_ok=True)
        os.close(self._file)

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return os.fstat(self._file).st_size

    def head(self, num_bytes: int) -> bytes:
        """The first bytes."""
        return os.pread(self._file, num_bytes, 0)

    def resume_point(self, url: str) -> tuple[int, Version | None]:
        """Return how many bytes of `url` are here and of which version; 0 and None when that cannot be proved."""
        try:
            note = read_json(self._note)
            version = Version(note["size"], note["etag"], note["last_modified"])
            same = note["url"] == url
        except (DataError, KeyError, TypeError):
            return 0, None
        if not (same and version.proof and self.size) or self.size > (version.size or self.size):
            return 0, None
        return self.size, version

    def restart(self, url: str, version: Version) -> None:
        """Throw the bytes away and note what is to come. In this order: the note never belongs to older bytes."""
        self.clear()
        marks = {"size": version.size, "etag": version.etag, "last_modified": version.last_modified}
        write_json(self._note, {"url": url, **marks})

    def clear(self) -> None:
        """Throw the bytes away."""
        os.ftruncate(self._file, 0)

    def append(self, data: bytes) -> None:
        """Add `data`; DownloadError when the disk does not take it, with all that fits kept."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except OSError as err:
                raise DownloadError(
                    f"{self.path}: cannot be written further than {self.size / 1e6:.1f} MB ({err.strerror}). These are "
                    "kept: make room and run the same command again."
                ) from err

    def publish(self) -> None:
        """Give the file its name."""
        os.fsync(self._file)
        os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._busy() from None
        except OSError as err:
            if err.errno not in NO_LOCKS:
                raise
            logger.warning("%s: this file system has no locks; let only one process download it", self.path)
        if not self._is_ours():  # another process finished it between our opening and our locking
            raise self._busy()

    def _is_ours(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _busy(self) -> DownloadError:
        return DownloadError(f"{self.target}: another process is downloading it; wait for that one.")
