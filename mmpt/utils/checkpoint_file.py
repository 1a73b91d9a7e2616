"""Reads checkpoint files without running code from them, and refuses numbers that are not finite.

Every file is read with torch's `weights_only`, which builds tensors, plain values and instances of
a list of further classes that torch keeps for the whole process. Importing this module adds
`argparse.Namespace` to that list: fairseq keeps its settings in it, and fairseq's own `torch.load`
of the same file must accept it, too. The training process (`tasks/fairseqmmtask.py`) adds
omegaconf's containers, in which fairseq sends a checkpoint to other processes. All of these classes
only hold values.
"""

import re
import zipfile
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpt.errors import CheckpointError

MOST_NAMED = 3

torch.serialization.add_safe_globals([Namespace])  # for the whole process; see above


def load_checkpoint(path: str | Path, *, mapped: bool = False) -> dict[str, Any]:
    """Returns all that a checkpoint file holds, on the CPU; nothing in the file can run code.

    Besides tensors and plain values only the settings classes are built that the head of this file
    names.

    Args:
        mapped: leave the tensors' numbers in the file until they are used. Files in torch's format
            of before 1.6 cannot be mapped and are read whole.
    Raises:
        CheckpointError: missing, damaged, not a checkpoint, or holding other classes or functions.
    """
    try:
        mapped = mapped and zipfile.is_zipfile(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (FileNotFoundError, IsADirectoryError) as err:
        raise CheckpointError(
            f"{path}: no such checkpoint. Download or train it, or correct the key that names it "
            "(`fairseq.checkpoint.restore_file` in training, `fairseq.common_eval.path` in "
            "evaluation)."
        ) from err
    except Exception as err:  # damaged bytes make the reader raise almost anything, OSError too
        if asked := re.search(r"GLOBAL ([\w.]+)", str(err)):
            raise CheckpointError(
                f"{path}: only tensors and plain settings are read, but the file asks for "
                f"{asked[1]}, which could run code. If you trust it, load it with `torch.load(..., "
                "weights_only=False)` yourself, save it without that."
            ) from err
        reason = (str(err).strip() or type(err).__name__).splitlines()[0][:120]
        raise CheckpointError(
            f"{path}: damaged, cut short or not a checkpoint ({reason}); copy or download it again."
        ) from err
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f"{path}: a checkpoint must be a dict, but this is a {type(checkpoint).__name__}."
        )
    return checkpoint


def require_finite(
    tensors: Mapping[str, Any], source: str | Path, remedy: str, *, what: str = "weights"
) -> None:
    """Checks that no tensor holds NaN or infinity.

    Args:
        tensors: by name. Other values than floating-point tensors are ignored.
        source: the file or folder that they come from, for messages.
        remedy: what to do, as a sentence.
        what: what the tensors are, for messages.
    Raises:
        CheckpointError: some do. Names the first tensors, and how many values are bad.
    """
    bad = [name for name, value in tensors.items() if not _is_finite(value)]
    if not bad:
        return
    num_bad = sum(int((~tensors[name].isfinite()).sum()) for name in bad)
    total = sum(value.numel() for value in tensors.values() if isinstance(value, Tensor))
    first = ", ".join(f"`{name}`" for name in bad[:MOST_NAMED])
    raise CheckpointError(
        f"{source}: {what} must be finite, but {num_bad:,} of {total:,} values are NaN or "
        f"infinite, in {len(bad)} tensors (first: {first}). {remedy}"
    )


def _is_finite(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return True
    # If one number is NaN, so are both extremes. This is many times faster than `isfinite().all()`.
    low, high = value.aminmax()
    return bool(low.isfinite() and high.isfinite())
