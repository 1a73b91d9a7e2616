"""Output files with a note about their inputs, so that a rerun can skip files that are up to date.

The note is a JSON file with a fingerprint of the inputs. It is removed before its files are
written, and written after them. Files whose note has the expected fingerprint are therefore
complete, even if a run was killed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmpt.errors import DataError
from mmpt.utils.io import read_json, write_json


def fingerprint(*inputs: Any) -> str:
    """Returns the SHA-256, in hex, of JSON-serialisable values.

    Args:
        inputs: everything that an output depends on.
    """
    text = json.dumps(inputs)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_fingerprint(module: nn.Module, trainable_only: bool = True) -> str:
    """Returns the SHA-256, in hex, of the names, dtypes, shapes and values of the parameters.

    It does not depend on the device.

    Args:
        trainable_only: leave out frozen parameters, which do not change in the course of a run.
    """
    digest = hashlib.sha256()
    num_parameters = 0
    for name, parameter in module.named_parameters():
        if trainable_only and not parameter.requires_grad:
            continue
        num_parameters += 1
        values = parameter.detach().cpu().contiguous()
        header = f"{name} {values.dtype} {tuple(values.shape)}\n"
        digest.update(header.encode())
        content = values.flatten().view(torch.uint8)
        digest.update(content.numpy().data)
    assert num_parameters, "a fingerprint of no weights would fit every model"
    return digest.hexdigest()


@dataclass(frozen=True)
class Artefact:
    """Files that are written together, and the path of their note."""

    note: Path
    files: tuple[Path, ...]

    def finished(self, inputs_hash: str) -> dict[str, Any] | None:
        """Returns the note if the files are complete and up to date, else None.

        For this, the note must have the fingerprint `inputs_hash` and the current sizes of the
        files.
        """
        try:
            note = read_json(self.note)
        except DataError:
            return None
        if not isinstance(note, dict):
            return None
        is_current = note.get("fingerprint") == inputs_hash
        is_complete = note.get("bytes") == self._sizes()
        return note if is_current and is_complete else None

    def begin(self) -> None:
        """Removes the note. Call it before the files are changed."""
        self.note.unlink(missing_ok=True)

    def finish(self, inputs_hash: str, **details: Any) -> dict[str, Any]:
        """Writes the note of complete files, and returns it.

        Args:
            inputs_hash: fingerprint of the inputs that the files were made from.
            details: JSON-serialisable values that are added to the note.
        """
        note = {"fingerprint": inputs_hash, "bytes": self._sizes(), **details}
        write_json(self.note, note)
        return note

    def _sizes(self) -> list[int]:
        """Returns the size of each file in bytes, -1 for a missing one."""
        return [path.stat().st_size if path.is_file() else -1 for path in self.files]
