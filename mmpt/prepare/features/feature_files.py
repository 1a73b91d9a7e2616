"""Feature files of a folder that several processes may fill at once: claimed while at work, whole when they appear.

A video's claim and its temporary file are one: `<folder>/.partial/<name>.npy`, locked with flock while its features are
made, filled at the end and renamed to its place. A process that dies, however, leaves no claim (the system drops the
lock) and nothing but an unlocked leftover that the next run takes over. Where a file system has no locks, work may be
done twice but results are the same: temporary names then hold the machine and the process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.utils.io import NPY_ERRORS, read_json, write_error, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

PARTIAL = ".partial"
SETTINGS_FILE = "extract_settings.json"
NOTES_FILE = ".extract_notes.jsonl"
LOCK_FILE = ".extract.lock"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def is_finished(path: Path, dtype: np.dtype[Any]) -> bool:
    """Tell whether `path` is a whole feature file [seconds, 512] of this dtype; reads its header and size only."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, *NPY_ERRORS):
        return False
    return features.ndim == 2 and features.shape[1] == FEATURE_DIM and len(features) > 0 and features.dtype == dtype


class Claim:
    """The right to make one feature file; get one with `Claim.take`, and end it with `write` or `release`."""

    def __init__(self, path: Path, partial: Path, file: IO[bytes]):
        self.path = path
        self._partial = partial
        self._file = file

    @classmethod
    def take(cls, path: Path) -> Claim | None:
        """Claim `path`; None when another process is at work on it.

        Raises:
            DataError: the folder cannot be written.
        """
        partial = path.parent / PARTIAL / path.name
        try:
            while True:
                partial.parent.mkdir(parents=True, exist_ok=True)
                try:
                    file = _open(partial, "r+b" if partial.exists() else "x+b")
                except (FileExistsError, FileNotFoundError):
                    continue  # another process came or went in this instant
                if not _lock(file):
                    file.close()
                    return None
                if _is_at(file, partial):
                    return cls(path, partial, file)
                file.close()  # renamed or removed by its owner before we had the lock
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise write_error(err, path) from err
        file.close()
        name = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()  # keeps the whole short enough
        own = partial.with_name(f"{name}.{socket.gethostname()}.{os.getpid()}")
        return cls(path, own, _open(own, "w+b"))

    def write(self, features: np.ndarray) -> None:
        """Write the file whole and end the claim.

        Raises:
            DataError: the disk is full or the folder cannot be written; then nothing is left.
        """
        try:
            self._file.truncate(0)
            np.save(self._file, features)
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._partial, self.path)
        except OSError as err:
            self.release()
            raise write_error(err, self.path) from err
        self._file.close()

    def release(self) -> None:
        """End the claim without a file; does nothing when it has ended."""
        if not self._file.closed:
            self._partial.unlink(missing_ok=True)
            with suppress(OSError):  # closing tries again to write what a full disk did not take
                self._file.close()


def tidy(folder: Path) -> None:
    """Remove the folder of claims unless another process still has some."""
    try:
        os.rmdir(folder / PARTIAL)
    except OSError as err:
        if err.errno not in (errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST):
            raise write_error(err, folder) from err


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Record what the features of `folder` are made with, or compare with what is recorded there.

    Raises:
        DataError: its features were made in another way, or it cannot be written.
    """
    path = folder / SETTINGS_FILE
    with locked(folder):
        if not path.exists():
            if any(entry.name.endswith(".npy") for entry in os.scandir(folder)):
                logger.warning("%s: has features of unknown settings; they are kept as they are", folder)
            write_json(path, settings)
            return
    old = read_json(path)
    if old != settings:
        known = old if isinstance(old, dict) else {}
        keys = sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key))
        changes = ", ".join(f"{key} {known.get(key)!r} (now {settings.get(key)!r})" for key in keys)
        raise DataError(
            f"{folder}: its features were made with other settings: {changes}. Give another folder with `--fdir`, or "
            f"remove this one's features and {SETTINGS_FILE} to make them anew."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write the few files that all who fill `folder` share; it is made if it is not there.

    Raises:
        DataError: it cannot be written.
    """
    with writing(folder), exclusive(folder / LOCK_FILE, "writing what all extractions share"):
        yield


def add_notes(folder: Path, video_id: str, notes: list[str]) -> None:
    """Remember what was wrong with a video whose features are about to be written to `folder`, or that nothing was.

    A rerun skips such a video and must still name it. A line is written in one piece, so a killed process leaves a
    whole one or none.

    Raises:
        DataError: the folder cannot be written.
    """
    line = json.dumps({"id": video_id, "notes": notes}).encode() + b"\n"
    path = folder / NOTES_FILE
    with writing(path), open(path, "ab", buffering=0) as file:
        file.write(line)


def read_notes(folder: Path) -> dict[str, list[str]]:
    """Return the notes of every video that has some; of several lines about one video the last counts."""
    found: dict[str, list[str]] = {}
    with suppress(FileNotFoundError), open(folder / NOTES_FILE, encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(json.JSONDecodeError, KeyError, TypeError):  # a line that a full disk cut off
                entry = json.loads(line)
                found[entry["id"]] = entry["notes"]
    return {video_id: notes for video_id, notes in found.items() if notes}


def _open(path: Path, mode: str) -> IO[bytes]:
    return open(path, mode)  # the claim closes it


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Tell whether the open file is still the one called `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
