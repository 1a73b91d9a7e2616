"""How a loader's process hands over a batch: in a file in memory that it uses again, of which its parent takes a copy.

torch moves every tensor that leaves a worker into a new piece of shared memory. To find, clear, map and free the 4,096
pages of a batch of 64 videos takes the kernel longer than it takes the worker to make that batch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from typing import Any, NamedTuple

import torch

FREE, TAKEN = b"\0", b"\1"  # the first byte of a file; the tensors follow, one after another
MAX_BYTES = 1 << 30  # Linux reads and writes less than 2 GiB at once

_files: list[int] = []
"""This process's own, as many as it had batches under way at once; they end with it."""


class _Blank(NamedTuple):
    """Stands for a tensor in the message."""

    shape: torch.Size
    dtype: torch.dtype


class Parcel:
    """A batch on its way; unpickled once, it is the batch again, in the memory of who unpickled it."""

    def __init__(self, batch: Mapping[str, Any]):
        self.message = {
            name: _Blank(value.shape, value.dtype) if isinstance(value, torch.Tensor) else value
            for name, value in batch.items()
        }
        self.file = _free_file()
        parts: list[bytes | memoryview] = [TAKEN, *_contents(batch)]
        written = os.pwritev(self.file, parts, 0)
        assert written == sum(map(len, parts)), f"{written} bytes were written"

    def __reduce__(self) -> tuple:
        return _unpack, (DupFd(self.file), self.message)


def hand_over(batch: dict[str, Any]) -> Any:
    """Return what a worker sends for `batch`: a `Parcel`, or the batch itself where there are no such files."""
    size = sum(value.nbytes for value in batch.values() if isinstance(value, torch.Tensor))
    return Parcel(batch) if hasattr(os, "memfd_create") and size <= MAX_BYTES else batch


def _unpack(sent: Any, message: Mapping[str, Any]) -> dict[str, Any]:
    batch = {
        name: torch.empty(value.shape, dtype=value.dtype) if isinstance(value, _Blank) else value
        for name, value in message.items()
    }
    file = sent.detach()
    parts = _contents(batch)
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


def _contents(batch: Mapping[str, Any]) -> list[memoryview]:
    tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
    return [tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in tensors]
