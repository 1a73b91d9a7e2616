"""Outputs with a stamp file that records their inputs, so that a rerun skips up-to-date files.

The stamp is a JSON file with a fingerprint of the inputs. It is removed before its files are
written, and written after them. Files whose stamp has the expected fingerprint are therefore
complete, even if a run was killed.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt.errors import DataError
from mmpt.utils.io import read_json, write_json

if TYPE_CHECKING:
    from torch import nn  # takes seconds, and stamps do not need it


def fingerprint(*inputs: Any) -> str:
    """Returns the SHA-256, in hex, of JSON-serialisable values.

    Args:
        inputs: everything that an output depends on.
    """
    text = json.dumps(inputs)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_fingerprint(module: "nn.Module", trainable_only: bool = True) -> str:
    """Returns the SHA-256, in hex, of the names, dtypes, shapes and values of the parameters.

    It does not depend on the device.

    Args:
        trainable_only: leave out frozen parameters, which do not change in the course of a run.
    """
    import torch  # deferred, as above

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
    """Files that are written together, and the path of their stamp."""

    stamp: Path
    files: tuple[Path, ...]

    def finished(self, inputs_hash: str) -> dict[str, Any] | None:
        """Returns the stamp if the files are complete and up to date, else None.

        For this, the stamp must have the fingerprint `inputs_hash` and the current sizes of the
        files.
        """
        try:
            stamp = read_json(self.stamp)
        except DataError:
            return None
        if not isinstance(stamp, dict):
            return None
        is_current = stamp.get("fingerprint") == inputs_hash
        is_complete = stamp.get("bytes") == self._sizes()
        return stamp if is_current and is_complete else None

    def begin(self) -> None:
        """Removes the stamp. Call it before the files are changed."""
        self.stamp.unlink(missing_ok=True)

    def finish(self, inputs_hash: str, **details: Any) -> dict[str, Any]:
        """Writes the stamp of complete files, and returns it.

        Args:
            inputs_hash: fingerprint of the inputs that the files were made from.
            details: JSON-serialisable values that are added to the stamp.
        """
        stamp = {"fingerprint": inputs_hash, "bytes": self._sizes(), **details}
        write_json(self.stamp, stamp)
        return stamp

    def _sizes(self) -> list[int]:
        """Returns the size of each file in bytes, -1 for a missing one."""
        return [path.stat().st_size if path.is_file() else -1 for path in self.files]
