"""Files that a command makes, with a note of what they were made from, so that a rerun keeps them.

The note is a JSON file. It is removed before its files are touched, and written after them. Files
whose note has the wanted fingerprint are therefore finished, however earlier runs ended.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import read_json, write_json


def fingerprint(*inputs: Any) -> str:
    """Returns the SHA-256, in hex, of the plain values that decide what a command makes."""
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()


@dataclass(frozen=True)
class Artefact:
    """Files that are made together, and the path of their note."""

    note: Path
    files: tuple[Path, ...]

    def finished(self, mark: str) -> dict[str, Any] | None:
        """Returns the note if it has the fingerprint `mark` and the files' sizes, else None."""
        wanted = {"fingerprint": mark, "bytes": self._sizes()}
        try:
            note = read_json(self.note)
        except DataError:
            return None
        return note if isinstance(note, dict) and note | wanted == note else None

    def begin(self) -> None:
        """Removes the note. Call it before the files are touched."""
        self.note.unlink(missing_ok=True)

    def finish(self, mark: str, **details: Any) -> dict[str, Any]:
        """Writes the note of files that are complete, and returns it.

        Args:
            mark: the fingerprint of what they were made from.
            details: plain values that are kept in the note.
        """
        note = {"fingerprint": mark, "bytes": self._sizes(), **details}
        write_json(self.note, note)
        return note

    def _sizes(self) -> list[int]:
        return [path.stat().st_size if path.is_file() else -1 for path in self.files]
