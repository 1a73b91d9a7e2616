"""Writes shards: the features and captions of many videos, or one ragged tensor item by item."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from mmpt.batch import Captions, Split
from mmpt.shards.shardedtensor import (
    ShardedTensor,
    ids_stem,
    open_shard,
    times_stem,
    video_stem,
    write_shard_meta,
)
from mmpt.utils.io import atomic_write

SHARD_SIZE = 4096  # videos per shard in the released files
MAX_CAPTION_IDS = 32  # word pieces of a caption that are kept
PADDING = -1  # word-piece id of unused slots


class RowStream:
    """The data file of a ragged tensor while it is written, item by item. Memory holds one item.

    The header of a `.npy` file contains the number of rows, which is known at the end only. NumPy
    pads the header so that this number can grow in place. Therefore a header for no rows is written
    first, and overwritten at the end. The file has the same bytes as with `np.save`.

    Args:
        file: the file, open for writing in binary mode.
        width: number of columns.
        dtype: type of the numbers.
    """

    def __init__(self, file: IO[bytes], width: int, dtype: np.dtype):
        self.starts = [0]
        """Offset of every item so far, and the total number of rows."""
        self._file = file
        self._width = width
        self._dtype = dtype
        self.write_header()

    def append(self, rows: np.ndarray) -> None:
        """Writes the next item, an array [rows, width] of the stream's dtype."""
        assert rows.ndim == 2
        assert rows.shape[1] == self._width
        assert rows.dtype == self._dtype
        self._file.write(rows.tobytes())
        num_rows = self.starts[-1] + len(rows)
        self.starts.append(num_rows)

    def write_header(self) -> None:
        """Writes the header for the rows so far at the beginning of the file."""
        self._file.seek(0)
        header = {
            "descr": npy_format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.starts[-1], self._width),
        }
        npy_format.write_array_header_1_0(self._file, header)


@contextmanager
def row_stream(stem: str, width: int, dtype: np.dtype) -> Iterator[RowStream]:
    """Opens a ragged tensor for writing, item by item.

    `<stem>_data.npy` and `<stem>_starts.npy` get their names only if the block ends without an
    error.

    Args:
        stem: path stem of the tensor.
        width: number of columns.
        dtype: type of the numbers.
    """
    # Both files are renamed at the end of their blocks, the starts first.
    with atomic_write(f"{stem}_data.npy", "wb") as data:
        stream = RowStream(data, width, dtype)
        yield stream
        stream.write_header()
        with atomic_write(f"{stem}_starts.npy", "wb") as starts:
            offsets = np.array(stream.starts, dtype=np.int64)
            np.save(starts, offsets, allow_pickle=False)
    open_shard.cache_clear()


def write_caption_shard(
    tfeat_dir: str | Path, split: Split, shard: int, captions: Sequence[Captions]
) -> None:
    """Writes the captions of one shard.

    Times are float32 [captions, 2] per video. Word-piece ids are int32 [captions, 32] per video,
    cut to 32 or padded with -1.

    Args:
        tfeat_dir: path prefix of the caption files, ending in a dot.
        captions: the captions of every video, in the row order of the feature shard.
    """
    times = []
    ids = []
    for video_captions in captions:
        start_and_end = [video_captions["start"], video_captions["end"]]
        times_2C = np.array(start_and_end, dtype=np.float32)
        times.append(times_2C.T)
        ids.append(pad_ids(video_captions["cap"]))
    times_tensor = ShardedTensor.from_list(times)
    times_tensor.save(times_stem(tfeat_dir, split, shard))
    ids_tensor = ShardedTensor.from_list(ids)
    ids_tensor.save(ids_stem(tfeat_dir, split, shard))


def write_shards(
    vfeat_dir: str | Path,
    tfeat_dir: str | Path,
    split: Split,
    videos: Iterable[tuple[str, np.ndarray, Captions]],
    shard_size: int = SHARD_SIZE,
) -> list[list[str]]:
    """Writes the features, the captions and the meta file of a split.

    Memory holds one shard at a time. The meta file is written last, so a split with a meta file is
    complete.

    Args:
        vfeat_dir: folder of the feature shards.
        tfeat_dir: path prefix of the caption files, ending in a dot.
        videos: (id, features, captions) of every video in list order. Features are float [rows,
            width], and their dtype is kept.
        shard_size: videos per shard.
    Returns:
        The ids of every shard, as in the meta file.
    """
    shards: list[list[str]] = []
    remaining = iter(videos)
    # Take the videos of one shard at a time, and turn them into one list per column.
    while chunk := list(islice(remaining, shard_size)):
        shard = len(shards)
        ids, features, captions = zip(*chunk, strict=True)
        feature_tensor = ShardedTensor.from_list(features)
        feature_tensor.save(video_stem(vfeat_dir, split, shard))
        write_caption_shard(tfeat_dir, split, shard, captions)
        shards.append(list(ids))
    write_shard_meta(vfeat_dir, split, shards)
    return shards


def pad_ids(captions: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the word-piece ids of captions, int32 [captions, 32], cut or padded with -1."""
    shape = (len(captions), MAX_CAPTION_IDS)
    rows = np.full(shape, PADDING, dtype=np.int32)
    for row, ids in zip(rows, captions, strict=True):
        kept = ids[:MAX_CAPTION_IDS]
        row[: len(kept)] = kept
    return rows
