"""Writes shards: features and captions of many videos, or one ragged tensor row by row."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from mmpt.batch import Captions, Split
from mmpt.shards.layout import ids_stem, times_stem, video_stem, write_shard_meta
from mmpt.shards.shardedtensor import ShardedTensor, open_shard
from mmpt.utils.io import atomic_write

SHARD_SIZE = 4096  # videos per shard in the released files
MAX_CAPTION_IDS = 32  # word pieces kept of a caption
PADDING = -1


class RowStream:
    """The open data file of a ragged tensor. Memory holds one item.

    NumPy pads a header so that the first axis can grow in place. The header is therefore written
    first, for no rows, and again at the end: the bytes are those of `np.save` of the whole.
    """

    def __init__(self, file: IO[bytes], width: int, dtype: np.dtype):
        self.starts = [0]
        """Rows in front of each item, and of all."""
        self._file = file
        self._width = width
        self._dtype = dtype
        self.write_header()

    def append(self, rows: np.ndarray) -> None:
        """Writes the next item, [rows, width] of the stream's dtype."""
        assert rows.shape == (len(rows), self._width)
        assert rows.dtype == self._dtype
        self._file.write(rows.tobytes())
        self.starts.append(self.starts[-1] + len(rows))

    def write_header(self) -> None:
        """Writes the header for the rows so far to the beginning of the file."""
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        shape = (self.starts[-1], self._width)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def row_stream(stem: str, width: int, dtype: np.dtype) -> Iterator[RowStream]:
    """Opens `<stem>_data.npy` for streaming. The files get their names when the block ends well."""
    with atomic_write(f"{stem}_data.npy", "wb") as data:
        stream = RowStream(data, width, dtype)
        yield stream
        stream.write_header()
        with atomic_write(f"{stem}_starts.npy", "wb") as starts:
            np.save(starts, np.array(stream.starts, dtype=np.int64), allow_pickle=False)
    open_shard.cache_clear()


def write_caption_shard(
    tfeat_dir: str | Path, split: Split, shard: int, captions: Sequence[Captions]
) -> None:
    """Writes the captions of one shard: times float32 [n, 2] and ids int32 [n, 32], cut to 32 and
    padded with -1.

    Args:
        tfeat_dir: path prefix ending in a dot.
        captions: per video, in the row order of the feature shard.
    """
    times = [np.array([one["start"], one["end"]], dtype=np.float32).T for one in captions]
    ShardedTensor.from_list(times).save(times_stem(tfeat_dir, split, shard))
    ids = [pad_ids(one["cap"]) for one in captions]
    ShardedTensor.from_list(ids).save(ids_stem(tfeat_dir, split, shard))


def write_shards(
    vfeat_dir: str | Path,
    tfeat_dir: str | Path,
    split: Split,
    videos: Iterable[tuple[str, np.ndarray, Captions]],
    shard_size: int = SHARD_SIZE,
) -> list[list[str]]:
    """Writes everything a split needs, holding one shard in memory at a time. The meta file is
    written last.

    Args:
        videos: (id, float [seconds, 512], captions) in list order. The dtype of features is kept.
        shard_size: videos per shard.
    Returns:
        The ids of every shard, as in the meta file.
    """
    shards: list[list[str]] = []
    rest = iter(videos)
    while chunk := list(islice(rest, shard_size)):
        ids, features, captions = zip(*chunk, strict=True)
        ShardedTensor.from_list(features).save(video_stem(vfeat_dir, split, len(shards)))
        write_caption_shard(tfeat_dir, split, len(shards), captions)
        shards.append(list(ids))
    write_shard_meta(vfeat_dir, split, shards)
    return shards


def pad_ids(captions: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the word-piece ids of captions, int32 [captions, 32], cut or padded with -1."""
    rows = np.full((len(captions), MAX_CAPTION_IDS), PADDING, dtype=np.int32)
    for row, ids in zip(rows, captions, strict=True):
        kept = ids[:MAX_CAPTION_IDS]
        row[: len(kept)] = kept
    return rows
