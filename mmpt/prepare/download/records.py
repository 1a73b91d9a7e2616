"""Records of downloads: size, SHA-256 and address of each file, in `<root>/downloads.json`.

Authors publish no hashes. The first download is trusted and recorded; every later download and
every later check must give the same bytes.
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

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A file: its bytes, their SHA-256, its address (None: put there by hand), the date (UTC)."""

    size: int
    sha256: str
    url: str | None
    date: str


class Records:
    """The records of the files under `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.path = root / "downloads.json"
        self.locks = root / ".downloads"

    def get(self, target: Path) -> Record | None:
        """Returns the record of `target`, or None.

        Raises:
            DataError: `downloads.json` is damaged.
        """
        return self._read().get(self._key(target))

    def add(self, target: Path, record: Record) -> None:
        """Writes the record of `target`. Several processes may add records at the same time."""
        with exclusive(self.locks / "records.lock", f"writing {self.path.name}"):
            records = self._read() | {self._key(target): record}
            files = {key: asdict(records[key]) for key in sorted(records)}
            write_json(self.path, {"format": FORMAT, "files": files})

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
                f"{self.path}: not a list of downloads ({err}). Remove it. The files that are here "
                "are then recorded again, as they are."
            ) from None


def record_of(path: Path, url: str | None) -> Record:
    """Computes the record of the file at `path`."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Record(path.stat().st_size, digest, url, date)
