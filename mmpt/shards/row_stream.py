"""Writes a ragged tensor row by row: what is in memory is one row's array, and the files are those
of `ShardedTensor`.

NumPy pads a header so that the first axis can grow in place. The header is therefore written first,
for no rows, and again at the end: the bytes are those of `np.save` of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from mmpt.shards.shardedtensor import open_shard
from mmpt.utils.io import atomic_write


class RowStream:
    """The open data file of a ragged tensor."""

    def __init__(self, file: IO[bytes], width: int, dtype: np.dtype):
        self.width = width
        self.dtype = dtype
        self._file = file
        self._starts = [0]
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        """Writes the next item, [rows, width] of the stream's dtype."""
        assert rows.ndim == 2
        assert rows.shape[1] == self.width
        assert rows.dtype == self.dtype
        self._file.write(np.ascontiguousarray(rows).data.cast("B") if len(rows) else b"")
        self._starts.append(self._starts[-1] + len(rows))

    @property
    def num_rows(self) -> int:
        """Rows of all items written so far."""
        return self._starts[-1]

    def finish(self) -> np.ndarray:
        """Puts the final header in place; return the starts, int64 [items + 1]."""
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        self._file.seek(end)
        return np.array(self._starts, dtype=np.int64)

    def _write_header(self) -> None:
        descr = np.lib.format.dtype_to_descr(self.dtype)
        shape = (self._starts[-1], self.width)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": descr, "fortran_order": False, "shape": shape}
        )


@contextmanager
def row_stream(stem: str, width: int, dtype: np.dtype) -> Iterator[RowStream]:
    """Opens `<stem>_data.npy` for streaming. The files get their names when the block ends well."""
    with atomic_write(f"{stem}_data.npy", "wb") as data:
        stream = RowStream(data, width, dtype)
        yield stream
        with atomic_write(f"{stem}_starts.npy", "wb") as starts:
            np.save(starts, stream.finish(), allow_pickle=False)
    open_shard.cache_clear()
