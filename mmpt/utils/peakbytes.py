"""Bytes that tensors hold, counted operation by operation: the same on every device, whatever its allocator keeps."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PeakBytes(TorchDispatchMode):
    """Counts, while active, the bytes of the tensors that were made and still live, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation; storages that came in from outside, such as weights, count nothing."""
        for tensor in _tensors((*args, *(kwargs or {}).values())):
            self._note(tensor, outside=True)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._note(tensor)
        return result

    def _note(self, tensor: torch.Tensor, outside: bool = False) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)  # torch keeps one object for a storage as long as that lives
        if key not in self._sizes:
            self._sizes[key] = 0 if outside else storage.nbytes()
            self.held += self._sizes[key]
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.held -= self._sizes.pop(key)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of nested lists and tuples."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
