"""Converts arguments of `MMPTModel`'s methods to lists, plain strings and contiguous tensors."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from mmpt.errors import DataError
from mmpt.losses.base import upcast

Array = np.ndarray | Tensor
Video = str | Path | Array
"""A path, features [R, I], or frames [L, P, H, W, 3] (uint8, or float in 0..1)."""
Videos = Video | Iterable[Video]
Texts = str | Iterable[str]
DtypesByAxes = Mapping[int, Collection[str]]
"""Names of the dtypes that an array may have, by its number of axes."""

REFUSED = (str, bytes, bytearray, Mapping, set, frozenset)
"""Iterables that do not count as a list of values."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
"""Dtypes of features and vectors."""
FRAMES = (*FLOATS, "uint8")
"""Dtypes of frames."""


def to_list(values: Any, name: str, accepted: str) -> list[Any]:
    """Returns the entries of a list, tuple, array of one axis, pandas Series or other iterable.

    Args:
        name: name of the argument, for messages.
        accepted: description of accepted values, for messages.
    Raises:
        DataError: there is no entry, or `values` is something else. Sets are refused because they
            have no order, dicts and DataFrames because iterating over them gives keys.
    """
    is_list = isinstance(values, Iterable) and not isinstance(values, REFUSED)
    num_axes = getattr(values, "ndim", 1)
    if not is_list or num_axes != 1:
        raise refusal(name, accepted, values)
    entries = list(values)
    if not entries:
        raise DataError(f"{name} must be {accepted}, but is empty.")
    return entries


def to_texts(texts: Any, name: str) -> list[str]:
    """Returns one text or several as plain strings. Lone surrogates become `?`.

    Raises:
        DataError: as for `to_list`, or an entry is not a string.
    """
    accepted = "one or more strings"
    if isinstance(texts, str):
        texts = [texts]
    plain = []
    for index, entry in enumerate(to_list(texts, name, accepted)):
        if not isinstance(entry, str):
            raise DataError(
                f"{name} must be {accepted}, but {name}[{index}] is {describe(entry)}."
            )
        # The tokenizer accepts neither lone surrogates nor NumPy's class of strings.
        encoded = entry.encode("utf-8", "replace")
        plain.append(encoded.decode())
    return plain


def to_tensor(array: Any, name: str, accepted: str, dtypes: DtypesByAxes) -> Tensor:
    """Returns an array or a tensor as a contiguous tensor on the same device.

    Args:
        name: name of the argument, for messages.
        accepted: description of accepted values, for messages.
        dtypes: the accepted dtypes.
    Raises:
        DataError: `array` is not an array, or has another number of axes or another dtype.
    """
    if not is_array(array, dtypes):
        raise refusal(name, accepted, array)
    return contiguous(array)


def to_vectors(array: Any, name: str) -> Tensor:
    """Returns vectors [N, D] as a contiguous tensor, in float32 or float64.

    Raises:
        DataError: the array has another layout or dtype, or holds NaN or infinity.
    """
    vectors_ND = to_tensor(array, name, "vectors, floats [N, D]", {2: FLOATS})
    require_finite(vectors_ND, f"{name}: vectors", "embed them again")
    return upcast(vectors_ND)


def require_finite(rows: Tensor, what: str, remedy: str) -> Tensor:
    """Returns the rows unchanged.

    Args:
        rows: float [N, any].
        what: description of the rows, for messages.
        remedy: what to do, for messages.
    Raises:
        DataError: a row holds NaN or infinity.
    """
    is_finite_N = rows.isfinite().all(dim=1)
    num_bad = len(rows) - int(is_finite_N.sum())
    if num_bad:
        raise DataError(
            f"{what} must be finite, but {num_bad} of {len(rows)} hold NaN or infinity; {remedy}."
        )
    return rows


def is_array(value: Any, dtypes: DtypesByAxes) -> TypeGuard[Array]:
    """Returns True for an array or a tensor of an accepted number of axes and dtype."""
    if not isinstance(value, Array):
        return False
    accepted = dtypes.get(value.ndim, ())
    return _dtype_name(value) in accepted


def contiguous(array: Array) -> Tensor:
    """Returns an array of any strides and byte order as a contiguous tensor on the same device.

    Results therefore do not depend on the layout. Data is copied only if necessary.
    """
    if isinstance(array, Tensor):
        return array.contiguous()
    native = array.dtype.newbyteorder("=")
    array = np.require(array, native, ["C", "WRITEABLE", "ALIGNED", "ENSUREARRAY"])
    # An axis of length 1 may have a negative stride even now, which torch does not accept.
    flat = torch.from_numpy(array.reshape(-1))
    return flat.reshape(array.shape)


def refusal(name: str, accepted: str, value: Any) -> DataError:
    """Returns the error for an argument of another kind than the accepted ones."""
    return DataError(f"{name} must be {accepted}, but is {describe(value)}.")


def describe(value: Any) -> str:
    """Returns the dtype and shape of an array, or the class of another value, for messages."""
    if isinstance(value, Array):
        return f"{_dtype_name(value)} {list(value.shape)}"
    if value is None:
        return "None"
    return type(value).__name__


def _dtype_name(array: Array) -> str:
    """Returns the name of an array's dtype, such as `float32`, without its byte order."""
    if isinstance(array, np.ndarray):
        return array.dtype.name
    return str(array.dtype).removeprefix("torch.")
