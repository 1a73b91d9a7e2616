"""Reads checkpoint files without running code from them, and checks that their values are finite.

Files are read with torch's `weights_only=True`. It accepts tensors, plain values and instances of
allowed classes. torch's list of these applies to the whole process. Two kinds of classes that only
hold values are added to it:

- Importing this module adds `argparse.Namespace`, in which fairseq stores its settings. It must be
  in the list, because fairseq's own `torch.load` reads the same files.
- The training process (`tasks/fairseqmmtask.py`) adds OmegaConf's containers, in which fairseq
  sends a checkpoint to other processes.
"""

import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.errors import CheckpointError, DamagedCheckpointError

MAX_LISTED = 3
"""Largest number of tensors that a message names."""
MAX_REASON = 120
"""Largest number of characters of torch's message that an error repeats."""

# For the whole process, as described above.
torch.serialization.add_safe_globals([Namespace])


def load_checkpoint(path: str | Path, *, mapped: bool = False) -> dict[str, Any]:
    """Returns the content of a checkpoint file, with tensors on the CPU.

    Code in the file is never run.

    Args:
        mapped: map the file into memory, so that values are read when they are used. Files in the
            format of torch before 1.6 cannot be mapped. They are read as a whole.
    Raises:
        DamagedCheckpointError: the file is damaged or not a checkpoint.
        CheckpointError: the file is missing, or it holds other classes or functions than those in
            the list described above.
    """
    try:
        mapped = mapped and zipfile.is_zipfile(path)
        checkpoint = torch.load(
            path, map_location="cpu", weights_only=True, mmap=mapped
        )
    except (FileNotFoundError, IsADirectoryError) as err:
        raise CheckpointError(
            f"{path}: no such checkpoint. Download or train it, or correct the key that names it "
            "(`fairseq.checkpoint.restore_file` in training, `fairseq.common_eval.path` in "
            "evaluation)."
        ) from err
    except Exception as err:
        # With damaged files torch raises almost any error, even OSError.
        if refused := re.search(r"GLOBAL ([\w.]+)", str(err)):
            raise CheckpointError(
                f"{path}: only tensors and plain settings are read, but the file asks for "
                f"{refused[1]}, which could run code. If you trust the file, load it yourself with "
                "`torch.load(..., weights_only=False)`, and save it without that object."
            ) from err
        message = str(err).strip() or type(err).__name__
        reason = message.splitlines()[0][:MAX_REASON]
        raise DamagedCheckpointError(
            f"{path}: damaged, cut short or not a checkpoint ({reason}); copy or download it again."
        ) from err
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path}: a checkpoint must be a dict, but this is a {type(checkpoint).__name__}."
        )
    return checkpoint


def require_intact(path: str | Path) -> None:
    """Reads a whole checkpoint file and compares its checksums.

    Files in the format of torch before 1.6 have none. They are only loaded.

    Raises:
        DamagedCheckpointError: the file is damaged, cut short or not a checkpoint.
        CheckpointError: as for `load_checkpoint`.
    """
    load_checkpoint(path, mapped=True)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            try:
                bad = archive.testzip()
            except (zipfile.BadZipFile, OSError) as err:
                bad = str(err)
        if bad is not None:
            raise DamagedCheckpointError(
                f"{path}: damaged: the checksum of {bad} is wrong."
            )


def require_finite(
    tensors: Mapping[str, Any],
    source: str | Path,
    remedy: str,
    *,
    what: str = "weights",
) -> None:
    """Checks that no tensor holds NaN or infinity.

    Args:
        tensors: tensors by name. Values that are not floating-point tensors are ignored.
        source: the file or folder of the tensors, for messages.
        remedy: what to do, as a sentence.
        what: description of the tensors, for messages.
    Raises:
        CheckpointError: a tensor holds NaN or infinity. The message gives the number of such
            values and the names of the first tensors.
    """
    bad = [name for name, value in tensors.items() if not _is_finite(value)]
    if not bad:
        return
    num_bad = 0
    for name in bad:
        is_bad = ~tensors[name].isfinite()
        num_bad += int(is_bad.sum())
    total = sum(
        value.numel() for value in tensors.values() if isinstance(value, Tensor)
    )
    first = ", ".join(f"`{name}`" for name in bad[:MAX_LISTED])
    raise CheckpointError(
        f"{source}: {what} must be finite, but {num_bad:,} of {total:,} values are NaN or "
        f"infinite, in {len(bad)} tensors (first: {first}). {remedy}"
    )


def _is_finite(value: Any) -> bool:
    if (
        not isinstance(value, Tensor)
        or not value.is_floating_point()
        or not value.numel()
    ):
        return True
    # Minimum and maximum are NaN if any value is. This is much faster than `isfinite().all()`.
    low, high = value.aminmax()
    return bool(low.isfinite() and high.isfinite())
