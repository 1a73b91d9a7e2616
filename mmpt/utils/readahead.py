"""Says to the kernel what will be read of a mapped file: exactly that, all of it at once, and nothing around it.

By itself the kernel reads the neighbourhood of a page that is touched, 128 kB by default and 8 MB on machines that are
tuned for streaming, and the next one only when that is there.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_madvise = getattr(ctypes.CDLL(None), "madvise", None)  # Linux, macOS


def read_at_random(array: np.ndarray) -> None:
    """Of this mapped array, read the pages that are asked for and no others, from now on."""
    _advise(array, "MADV_RANDOM")


def read_soon(array: np.ndarray) -> None:
    """Begin to read this part of a mapped array, and return without waiting for it."""
    _advise(array, "MADV_WILLNEED")


def _advise(array: np.ndarray, advice: str) -> None:
    assert array.flags.forc, "only what lies in one piece"
    if _madvise is None or array.nbytes == 0:
        return
    address = array.__array_interface__["data"][0]
    begin = address - address % mmap.PAGESIZE
    # An advice that is refused changes nothing that is read.
    _madvise(ctypes.c_void_p(begin), ctypes.c_size_t(address + array.nbytes - begin), getattr(mmap, advice))
