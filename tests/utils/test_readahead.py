"""Which pages of a mapped file are in memory after advice, as the kernel tells them."""

import ctypes
import mmap
import os
import time

import numpy as np
import pytest
import torch

from mmpt.utils.readahead import read_at_random, read_soon

NUM_PAGES = 2048


def resident(array: np.ndarray) -> np.ndarray:
    """Which pages of a mapped array are in memory, bool [pages]."""
    flags = (ctypes.c_ubyte * NUM_PAGES)()
    address = ctypes.c_void_p(array.__array_interface__["data"][0])
    assert ctypes.CDLL(None).mincore(address, ctypes.c_size_t(array.nbytes), flags) == 0
    return np.array(flags[:]) & 1 == 1


@pytest.fixture
def mapped(tmp_path):
    """A mapped file of 8 MB of which nothing is in memory."""
    path = tmp_path / "file"
    path.write_bytes(np.arange(NUM_PAGES * mmap.PAGESIZE, dtype=np.uint8).tobytes())
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    array = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).numpy()
    if resident(array).any():
        pytest.skip("this file system keeps its pages in memory")
    return array


def test_by_itself_the_kernel_reads_the_neighbours_too(mapped):
    assert mapped[100 * mmap.PAGESIZE] == 0
    assert resident(mapped).sum() > 1  # measured 2048 where the device reads 8 MB ahead


def test_what_is_read_at_random_brings_no_neighbours(mapped):
    read_at_random(mapped)
    pages = range(7, NUM_PAGES, 97)
    for page in pages:
        assert mapped[page * mmap.PAGESIZE] == 0
    assert np.flatnonzero(resident(mapped)).tolist() == list(pages)


def test_what_is_read_soon_is_there_soon_and_nothing_else(mapped):
    read_at_random(mapped)
    first, last = 100, 200
    read_soon(mapped[first * mmap.PAGESIZE + 5 : last * mmap.PAGESIZE - 5])
    for _ in range(200):
        if resident(mapped)[first:last].all():
            break
        time.sleep(0.05)
    assert np.flatnonzero(resident(mapped)).tolist() == list(range(first, last))
    read_soon(mapped[:0])
    read_soon(np.ones(10))  # no file: nothing to read
