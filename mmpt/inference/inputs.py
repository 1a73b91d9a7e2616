"""Converts arguments of `MMPTModel`'s methods to lists, plain strings and contiguous tensors."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch

from mmpt.errors import DataError
from mmpt.losses.precision import upcast

Array = np.ndarray | torch.Tensor
Video = str | Path | Array
"""A path, features [L, 512], or frames [L, P, H, W, 3] (uint8, or float in 0..1)."""
Videos = Video | Iterable[Video]
Texts = str | Iterable[str]
Kinds = Mapping[int, Collection[str]]
"""The type names that are allowed for an array, by its number of axes."""

FLOATS = ("float16", "bfloat16", "float32", "float64")
FRAMES = (*FLOATS, "uint8")


def to_list(values: Any, name: str, accepted: str) -> list[Any]:
    """Returns the entries of a list, tuple, array of one axis, pandas Series or other iterable.

    Args:
        name: the argument, for messages.
        accepted: what it must be, for messages.
    Raises:
        DataError: there is no entry, or `values` is anything else, such as a set, which has no
            order, or a dict or DataFrame, whose entries are keys.
    """
    refused = isinstance(values, str | bytes | bytearray | Mapping | set | frozenset)
    if refused or not isinstance(values, Iterable) or getattr(values, "ndim", 1) != 1:
        raise DataError(f"{name} must be {accepted}, but is {describe(values)}.")
    entries = list(values)
    if not entries:
        raise DataError(f"{name} must be {accepted}, but is empty.")
    return entries


def to_texts(texts: Any, name: str) -> list[str]:
    """Returns one text or several as plain strings; half a surrogate pair becomes `?`.

    Raises:
        DataError: as `to_list`, or an entry is no string.
    """
    accepted = "one or more strings"
    entries = [texts] if isinstance(texts, str) else to_list(texts, name, accepted)
    for place, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise DataError(f"{name} must be {accepted}, but {name}[{place}] is {describe(entry)}.")
    # The tokenizer refuses half a surrogate pair, and NumPy's class of strings.
    return [entry.encode("utf-8", "replace").decode() for entry in entries]


def to_tensor(array: Any, name: str, accepted: str, kinds: Kinds) -> torch.Tensor:
    """Returns an array or a tensor as a contiguous tensor, on its device.

    Args:
        name: the argument, for messages.
        accepted: what it must be, for messages.
    Raises:
        DataError: `array` is none of `kinds`.
    """
    if not is_array(array, kinds):
        raise DataError(f"{name} must be {accepted}, but is {describe(array)}.")
    return contiguous(array)


def to_vectors(array: Any, name: str) -> torch.Tensor:
    """Returns vectors [N, D] as a contiguous tensor, float32 or wider.

    Raises:
        DataError: another layout or type, NaN or infinity.
    """
    vectors_ND = to_tensor(array, name, "vectors, floats [N, D]", {2: FLOATS})
    return upcast(require_finite(vectors_ND, f"{name}: vectors", "embed them again"))


def require_finite(rows: torch.Tensor, what: str, remedy: str) -> torch.Tensor:
    """Returns the rows; DataError if one holds NaN or infinity."""
    if bad := int((~rows.isfinite().all(dim=1)).sum()):
        raise DataError(
            f"{what} must be finite, but {bad} of {len(rows)} hold NaN or infinity; {remedy}."
        )
    return rows


def is_array(value: Any, kinds: Kinds) -> TypeGuard[Array]:
    """Returns True for an array or a tensor of one of `kinds`."""
    return isinstance(value, Array) and _type_name(value) in kinds.get(value.ndim, ())


def contiguous(array: Array) -> torch.Tensor:
    """Returns an array of any strides and byte order as a contiguous tensor, on its device.

    Results then do not depend on the layout. An array that needs no change is not copied.
    """
    if isinstance(array, torch.Tensor):
        return array.contiguous()
    native = array.dtype.newbyteorder("=")
    array = np.require(array, native, ["C", "WRITEABLE", "ALIGNED", "ENSUREARRAY"])
    # An axis of length 1 may still have a negative stride, which torch refuses.
    return torch.from_numpy(array.reshape(-1)).reshape(array.shape)


def describe(value: Any) -> str:
    """Returns an array's type and shape, or the class of another value, for messages."""
    if isinstance(value, Array):
        return f"{_type_name(value)} {list(value.shape)}"
    return "None" if value is None else type(value).__name__


def _type_name(array: Array) -> str:
    """Returns the name of an array's type, the same for every byte order."""
    return array.dtype.name if isinstance(array, np.ndarray) else str(array.dtype)[len("torch.") :]
