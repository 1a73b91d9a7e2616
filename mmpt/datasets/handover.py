"""How a loader's process hands over a batch: in a file in memory that it uses again, of which its parent takes a copy.

torch moves every tensor that leaves a worker into a new piece of shared memory. To find, clear, map and free the 4,096
pages of a batch of 64 videos takes the kernel longer than it takes the worker to make that batch.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple, TypeGuard

import torch

from mmpt.errors import DataError

FREE, TAKEN = b"\0", b"\1"  # the first byte of a file; the tensors follow, one after another
MAX_BYTES = 1 << 30  # Linux reads and writes less than 2 GiB at once
MAX_TENSORS = 1000  # and at most 1,024 pieces

_files: list[int] = []
"""This process's own, as many as it had batches under way at once; they end with it."""


class _Blank(NamedTuple):
    """Stands for a tensor in the message."""

    shape: torch.Size
    dtype: torch.dtype


class Parcel:
    """A batch on its way; unpickled once, it is the batch again, in the memory of who unpickled it.

    Raises:
        OSError: there is no room for it, or no file descriptor. (Raised when pickled, as by a queue's thread, it would
            be lost, and the parent would wait for the batch for ever.)
    """

    def __init__(self, batch: Mapping[str, Any]):
        self.message = {
            name: _Blank(value.shape, value.dtype) if _is_plain(value) else value for name, value in batch.items()
        }
        file = _free_file()
        parts: list[bytes | memoryview] = [TAKEN, *map(_contents, filter(_is_plain, batch.values()))]
        if os.pwritev(file, parts, 0) < sum(map(len, parts)):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self.file = DupFd(file)

    def __reduce__(self) -> tuple:
        return _unpack, (self.file, self.message)


def hand_over(batch: dict[str, Any]) -> Any:
    """Return what a worker sends for `batch`: a `Parcel`, or the batch itself where there are no such files.

    Raises:
        DataError: this process can have no such file, or none so large.
    """
    sizes = [value.nbytes for value in batch.values() if _is_plain(value)]
    if not hasattr(os, "memfd_create") or len(sizes) > MAX_TENSORS or sum(sizes) > MAX_BYTES:
        return batch
    try:
        return Parcel(batch)
    except OSError as err:
        raise DataError(
            f"a loader's process cannot hand over a batch of {sum(sizes):,} bytes: {err.strerror}. Raise the limits of "
            "this shell (`ulimit -n`, `ulimit -f`), or set `fairseq.dataset.num_workers` to 0."
        ) from err


def _unpack(sent: Any, message: Mapping[str, Any]) -> dict[str, Any]:
    batch = {
        name: torch.empty(value.shape, dtype=value.dtype) if isinstance(value, _Blank) else value
        for name, value in message.items()
    }
    file = sent.detach()
    parts = [_contents(batch[name]) for name, value in message.items() if isinstance(value, _Blank)]
    read = os.preadv(file, parts, len(TAKEN)) if parts else 0
    assert read == sum(map(len, parts)), f"{read} bytes were read"
    os.pwrite(file, FREE, 0)
    os.close(file)
    return batch


def _free_file() -> int:
    for file in _files:
        if os.pread(file, 1, 0) == FREE:
            return file
    _files.append(os.memfd_create("batch"))
    return _files[-1]


def _contents(tensor: torch.Tensor) -> memoryview:
    return tensor.resolve_conj().resolve_neg().reshape(-1).view(torch.uint8).numpy().data


def _is_plain(value: Any) -> TypeGuard[torch.Tensor]:
    """True for a tensor that is nothing but its numbers in main memory; torch knows how to send the others."""
    return (
        type(value) is torch.Tensor
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not (value.requires_grad or value.is_quantized)
    )
