"""The files of shards: tensors of ragged rows, each stored in two `.npy` files and memory-mapped,
and the meta file that maps videos to rows.

The meta file is JSON, {"format": 1, "shards": [[id, ...], ...]}: entry k lists the videos of shard
k in row order. The released `{train|val}_meta.pkl` ({k: [id, ...]}) is read if there is no JSON
file.

Why memory maps: mapped pages belong to the kernel's page cache. The kernel shares them between
processes and frees them when memory is short. The memory of a data loader worker therefore does not
grow with the rows that it has read. Every process keeps its maps in one bounded cache.

Two details keep this true for HowTo100M (300 shards x 3 tensors x 2 files):

- The files are mapped by torch. Python's `mmap` keeps a file descriptor open per map and would
  exceed the usual limit of 1,024.
- The kernel does not free the page tables of a map, which take 1 GB for HowTo100M's features.
  Therefore a large map is replaced by a new one after every `rows_per_map` rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.utils.io import atomic_write, load_npy, load_plain_pickle, write_json
from mmpt.utils.validation import read_json_as, validate

MAX_OPEN_SHARDS = 1024
REMEDY = "Pack this shard again, or download it again."


class ShardedTensor:
    """A tensor of ragged rows, stored as one concatenated array.

    Row i is `data[starts[i]:starts[i + 1]]` and may be empty.

    Args:
        data: all rows one after another, [total, ...] of any dtype.
        starts: offset of every row, and the total, [rows + 1] of any integer dtype.
        name: name of the tensor in messages; its path stem if it was loaded.
    Raises:
        DataError: `starts` does not rise from 0 to the length of `data`.
    """

    def __init__(
        self, data: np.ndarray, starts: np.ndarray, name: str = "ShardedTensor"
    ):
        _check_starts(data, starts, name)
        self.data = data
        self.starts = starts
        self.name = name
        self._is_mapped = False
        self._rows_per_map: int | None = None  # None: the map is not replaced
        self._rows_read = 0

    @classmethod
    def from_list(cls, rows: Sequence[np.ndarray]) -> ShardedTensor:
        """Returns the tensor of `rows`, arrays that differ in the length of their first axis."""
        lengths = [len(row) for row in rows]
        starts = np.cumsum([0, *lengths], dtype=np.int64)
        data = np.concatenate(rows)
        return cls(data, starts)

    @classmethod
    def load(
        cls,
        stem: str | os.PathLike[str],
        mmap_mode: Literal["r"] | None = None,
        *,
        rows_per_map: int = 128,
        large_map: int = 256 << 20,
    ) -> ShardedTensor:
        """Opens `<stem>_data.npy` and `<stem>_starts.npy`; the stem may contain dots.

        Args:
            mmap_mode: "r" maps the files read-only; None reads them into memory.
            rows_per_map: rows read before a large map is replaced. Each row may need 4 kB of page
                tables, so a map has at most about 0.5 MB of them.
            large_map: bytes above which a map counts as large. The page tables of a smaller one
                take at most 0.5 MB.
        Raises:
            DataError: a file is missing, truncated or not a `.npy` file, or the two do not fit.
        """
        stem = os.fspath(stem)
        data_path = f"{stem}_data.npy"
        starts_path = f"{stem}_starts.npy"
        if mmap_mode is None:
            data = load_npy(data_path, REMEDY)
            starts = load_npy(starts_path, REMEDY)
            return cls(data, starts, name=stem)
        data = _map_npy(data_path)
        starts = _map_npy(starts_path)
        shard = cls(data, starts, name=stem)
        shard._is_mapped = True
        if shard.data.nbytes > large_map:
            shard._rows_per_map = rows_per_map
        return shard

    def save(self, stem: str | os.PathLike[str]) -> None:
        """Writes both files under temporary names, then renames them.

        The maps of this process are dropped, so that the new files are opened.
        """
        stem = os.fspath(stem)
        with (
            atomic_write(f"{stem}_data.npy", "wb") as data,
            atomic_write(f"{stem}_starts.npy", "wb") as starts,
        ):
            contiguous = np.ascontiguousarray(self.data)
            np.save(data, contiguous, allow_pickle=False)
            starts_int64 = self.starts.astype(np.int64)
            np.save(starts, starts_int64, allow_pickle=False)
        open_shard.cache_clear()

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """Returns a row as a view of the data.

        Raises:
            DataError: the file was replaced by one of another length while it was in use.
        """
        num_rows = len(self)
        if not 0 <= row < num_rows:
            raise IndexError(f"{self.name}: row {row} of {num_rows}")
        self._rows_read += 1
        if self._rows_per_map is not None and self._rows_read % self._rows_per_map == 0:
            # Rows that the caller still holds keep the old map alive.
            self.data = _map_npy(f"{self.name}_data.npy")
            _check_starts(self.data, self.starts, self.name)
        begin = self.starts[row]
        end = self.starts[row + 1]
        return self.data[begin:end]

    def lengths(self) -> np.ndarray:
        """Returns the length of every row, int64 [rows]."""
        starts = self.starts.astype(np.int64, copy=False)
        return np.diff(starts)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_mapped:
            return open_shard, (self.name,)  # the other process maps the files itself
        return type(self), (self.data, self.starts, self.name)


@lru_cache(maxsize=MAX_OPEN_SHARDS)
def open_shard(stem: str) -> ShardedTensor:
    """Returns the mapped tensor at `stem`. It is opened and checked once per process, and forked
    workers inherit it.
    """
    return ShardedTensor.load(stem, mmap_mode="r")


def video_stem(vfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of a feature shard."""
    return f"{vfeat_dir}/{split.shard_name}_{shard}"


def times_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of the caption times of a shard.

    Args:
        tfeat_dir: path prefix of the caption files, ending in a dot.
    """
    return f"{tfeat_dir}{split.shard_name}_{shard}.startends"


def ids_stem(tfeat_dir: str | Path, split: Split, shard: int) -> str:
    """Returns the path stem of the word-piece ids of a shard.

    Args:
        tfeat_dir: path prefix of the caption files, ending in a dot.
    """
    return f"{tfeat_dir}{split.shard_name}_{shard}.caps_ids"


def write_shard_meta(
    vfeat_dir: str | Path, split: Split, shards: Sequence[Sequence[str]]
) -> Path:
    """Writes `<vfeat_dir>/{train|val}_meta.json` and returns its path.

    Args:
        shards: the video ids of every shard, in row order.
    """
    name = f"{split.shard_name}_meta.json"
    path = Path(vfeat_dir) / name
    lists = [list(ids) for ids in shards]
    write_json(path, {"format": 1, "shards": lists})
    return path


def meta_path(vfeat_dir: str | Path, split: Split) -> Path:
    """Returns the path of the meta file of a split: the JSON file, or else the released pickle.

    Raises:
        DataError: neither exists.
    """
    stem = f"{split.shard_name}_meta"
    for suffix in ("json", "pkl"):
        path = Path(vfeat_dir) / f"{stem}.{suffix}"
        if path.is_file():
            return path
    raise DataError(
        f"{vfeat_dir}: neither {stem}.json nor {stem}.pkl is there. `dataset.vfeat_dir` must be a "
        "folder of packed features: run `mmpt pack`, or correct the path."
    )


def read_shard_meta(vfeat_dir: str | Path, split: Split) -> dict[int, list[str]]:
    """Returns {shard: video ids in row order}, from the meta file of a split.

    Raises:
        DataError: there is no meta file, or it has another layout.
    """
    path = meta_path(vfeat_dir, split)
    remedy = "It must list the video ids of every shard. Pack the features again."
    if path.suffix == ".json":
        meta = read_json_as(path, _Meta, remedy)
        return dict(enumerate(meta.shards))
    content = load_plain_pickle(path)
    return validate(dict[int, list[str]], content, path, remedy)


class _Meta(BaseModel):
    """The content of a JSON meta file."""

    format: Literal[1]
    shards: list[list[str]]


def open_features(
    vfeat_dir: str, split: Split, shard: int, width: int | None = FEATURE_DIM
) -> ShardedTensor:
    """Returns the mapped features of a shard, float [rows, width] per video.

    Args:
        width: the width of a row. None: any.
    Raises:
        DataError: a file is missing or damaged, or has another dtype or width.
    """
    features = open_shard(video_stem(vfeat_dir, split, shard))
    wanted = f"floats of shape [rows, {width or 'width'}]"
    remedy = "Set `model.input_dim` to the width of the features, or correct `dataset.vfeat_dir`."
    _check_rows(features, "f", wanted, width, remedy)
    return features


def open_captions(
    tfeat_dir: str, split: Split, shard: int
) -> tuple[ShardedTensor, ShardedTensor]:
    """Returns the mapped caption times and word-piece ids of a shard.

    Returns:
        Start and end in seconds, float [captions, 2] per video, and ids, int [captions, width],
        padded with -1.
    Raises:
        DataError: a file is missing or damaged, or has another dtype or width.
    """
    stem = times_stem(tfeat_dir, split, shard)
    first_file = Path(f"{stem}_data.npy")
    if not tfeat_dir.endswith(".") and not first_file.exists():
        raise DataError(
            f"{first_file}: no such file. `dataset.tfeat_dir` is the beginning of file names and "
            f"must end in `.`, but is `{tfeat_dir}`."
        )
    times = open_shard(stem)
    ids = open_shard(ids_stem(tfeat_dir, split, shard))
    remedy = "Tokenise this shard again, or correct `dataset.tfeat_dir`."
    _check_rows(times, "f", "floats of shape [captions, 2]", 2, remedy)
    _check_rows(ids, "i", "signed integers of shape [captions, width]", None, remedy)
    return times, ids


def _check_rows(
    tensor: ShardedTensor, kind: str, wanted: str, width: int | None, remedy: str
) -> None:
    """Raises DataError unless the rows of a tensor have a kind of dtype and a width.

    Args:
        kind: the `kind` of the NumPy dtype.
        wanted: describes the rows, for the message.
        width: length of a row; None: any.
    """
    data = tensor.data
    is_table = data.dtype.kind == kind and data.ndim == 2
    if not is_table or width not in (None, data.shape[1]):
        raise DataError(
            f"{tensor.name}_data.npy: must hold {wanted}, but holds {data.dtype} of shape "
            f"{list(data.shape)}. {remedy}"
        )


def _check_starts(data: np.ndarray, starts: np.ndarray, name: str) -> None:
    """Raises DataError unless `starts` are integers that rise from 0 to the length of `data`."""
    if data.ndim == 0:
        raise DataError(
            f"{name}_data.npy: must have rows, but is a single number. {REMEDY}"
        )
    found = _starts_problem(starts, len(data))
    if not found:
        return
    raise DataError(
        f"{name}_starts.npy: starts and data disagree: starts must be integers that rise from 0 to "
        f"{len(data)}, the rows of {name}_data.npy, but {found}. {REMEDY}"
    )


def _starts_problem(starts: np.ndarray, total: int) -> str:
    """Returns what is wrong with `starts`, or an empty string."""
    is_integer = starts.dtype.kind in "iu"
    if starts.ndim != 1 or len(starts) == 0 or not is_integer:
        return f"are {starts.dtype} of shape {starts.shape}"
    first = starts[0]
    last = starts[-1]
    if first != 0 or last != total:
        return f"go from {first} to {last}"
    falls = starts[1:] < starts[:-1]
    if falls.any():
        position = int(falls.argmax()) + 1
        return f"fall to {starts[position]} at position {position}"
    return ""


def _map_npy(path: str) -> np.ndarray:
    """Maps a `.npy` file read-only, without keeping a file descriptor."""
    # NumPy parses the header, then torch maps the same bytes and closes the file. The numbers begin
    # after the header.
    import torch  # deferred: takes seconds, and writing shards does not need it

    array = load_npy(path, REMEDY, mmap_mode="r")
    assert isinstance(array, np.memmap)
    size = array.offset + array.nbytes
    file_bytes = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
    data_bytes = file_bytes.numpy()[array.offset :]
    values = data_bytes.view(array.dtype)
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    mapped = values.reshape(array.shape, order=order)
    mapped.flags.writeable = False
    return mapped
