"""Captions as arrays: they read like lists, and come out of a shard's padded rows."""

import numpy as np
import pytest

from mmpt.batch import Captions
from mmpt.processors.caption_rows import CaptionRows

CAPTIONS = Captions(start=[0.5, 2.0, 7.25], end=[2.5, 2.0, 9.0], cap=[[7, 8], [], [9, 10, 11]])


def test_lists_become_arrays_and_lists_again():
    rows = CaptionRows.of(CAPTIONS)
    assert rows.sizes == [2, 0, 3]
    assert rows.pieces.tolist() == [7, 8, 9, 10, 11]
    assert dict(rows) == CAPTIONS
    assert CaptionRows.of(rows) is rows
    with pytest.raises(KeyError):
        rows["text"]
    assert dict(CaptionRows.of(Captions(start=[], end=[], cap=[]))) == {
        "start": [],
        "end": [],
        "cap": [],
    }


def test_padding_is_left_out_wherever_it_stands():
    ids = np.array([[-1, 5, -1, 6], [-1, -1, -1, -1], [1, 2, 3, 4], [9, -1, -1, -1]])
    times = np.arange(8, dtype=np.float32).reshape(4, 2)
    first, none, last = CaptionRows.unpack([2, 0, 2], times, ids)
    assert dict(first) == {"start": [0.0, 2.0], "end": [1.0, 3.0], "cap": [[5, 6], []]}
    assert dict(none) == {"start": [], "end": [], "cap": []}
    assert dict(last) == {"start": [4.0, 6.0], "end": [5.0, 7.0], "cap": [[1, 2, 3, 4], [9]]}
