"""What was downloaded: size, SHA-256 and address of every file, in one `downloads.json` under the root.

The authors publish no hashes, so the first download is trusted and remembered; every later one, and every later check,
must give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import read_json, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

FORMAT = 1
SAY_FROM_BYTES = 500_000_000  # hashing this takes seconds


@dataclass(frozen=True)
class Record:
    """One file: bytes, their SHA-256, where they came from (None: found here), and when they were recorded (UTC)."""

    size: int
    sha256: str
    url: str | None
    date: str


class Ledger:
    """The records of the files under `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.path = root / "downloads.json"

    def get(self, target: Path) -> Record | None:
        """Return the record of `target`, or None."""
        return self._read().get(self._key(target))

    def add(self, target: Path, record: Record) -> None:
        """Write the record of `target`; safe beside other processes that write theirs."""
        with exclusive(self.root / ".downloads.lock", f"writing {self.path.name}"):
            records = self._read() | {self._key(target): record}
            write_json(self.path, {"format": FORMAT, "files": {key: asdict(records[key]) for key in sorted(records)}})

    def _key(self, target: Path) -> str:
        return Path(os.path.relpath(target, self.root)).as_posix()

    def _read(self) -> dict[str, Record]:
        if not self.path.exists():
            return {}
        try:
            value: Any = read_json(self.path)
            if value["format"] != FORMAT:
                raise DataError(f"its format is {value['format']}, not {FORMAT}")
            return {key: Record(**entry) for key, entry in value["files"].items()}
        except (DataError, KeyError, TypeError, AttributeError) as err:
            raise DataError(
                f"{self.path}: not a list of downloads ({err}). Remove it; the files that are here are then recorded "
                "anew, as they are."
            ) from None


def record_of(path: Path, url: str | None) -> Record:
    """Read the file at `path` and describe it; at 0.5 GB and more this is announced, because it takes a while."""
    size = path.stat().st_size
    if size >= SAY_FROM_BYTES:
        logger.info("%s: computing the SHA-256 of %.1f GB", path, size / 1e9)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Record(size, digest, url, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
