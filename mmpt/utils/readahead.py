"""Tells the kernel what will be read of a mapped file: exactly that, all of it at once, and nothing around it.

By itself the kernel reads the neighbourhood of a page that is touched, 128 kB by default and 8 MB on machines that are
tuned for streaming, and the next one only when that is there.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def read_at_random(array: np.ndarray) -> None:
    """Of this mapped array, read the pages that are asked for and no others, from now on."""
    _advise(array, mmap.MADV_RANDOM)


def read_soon(array: np.ndarray) -> None:
    """Begin to read this part of a mapped array, and return without waiting for it."""
    _advise(array, mmap.MADV_WILLNEED)


def _advise(array: np.ndarray, advice: int) -> None:
    assert array.flags.forc, "only what lies in one piece"
    address = array.__array_interface__["data"][0]
    begin = address - address % mmap.PAGESIZE
    _madvise(begin, address + array.nbytes - begin, advice)  # refused, it changes nothing that is read
