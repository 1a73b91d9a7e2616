"""Vectors by position in a file, so that all videos need no memory at once and a pass that was killed goes on.

Rows are written in place into a sparse file; beside it a record says which of them are there. The record is renamed
into place after the rows are on disk, and is believed only if it carries the key of today's pass: what is named in it
is right, what is not is computed again. Each process has a bank of its own: no file is written by two machines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from mmpt.errors import DataError
from mmpt.utils.distributed import World, cut_places
from mmpt.utils.io import read_json, remove_leftovers, write_json
from mmpt.utils.memory import written

FORMAT = 1
NAME_DIGITS = 16
"""Digits of the key in a file's name; the record holds all of them."""


class VectorBank:
    """The float16 rows [N, D] of one process, read and written by arrays of positions.

    Args:
        folder: where the files lie; made if it is not there.
        key: identity of everything that decides the vectors.
        rank: the process that the bank belongs to.
        shape: N and D.
    Raises:
        DataError: the file cannot be made.
    """

    dtype = np.dtype(np.float16)

    def __init__(self, folder: str | Path, key: str, rank: int, shape: tuple[int, int]):
        self.key = key
        self.shape = shape
        self._path = Path(folder) / f"bank_{key[:NAME_DIGITS]}_r{rank}.f16"
        self._record = self._path.with_suffix(".json")
        self._row_bytes = shape[1] * self.dtype.itemsize
        self.known_N = self._read_record()
        """bool [N], the rows that are there; who writes a row marks it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            os.ftruncate(self._handle, shape[0] * self._row_bytes)
        except OSError as err:
            raise self._unwritable(err) from None

    def _read_record(self) -> np.ndarray:
        """Return which rows an earlier process of the same key has left; a record of anything else is removed."""
        known_N = np.zeros(self.shape[0], dtype=bool)
        if self._record.exists():
            try:
                value = read_json(self._record)
            except DataError:
                value = None
            expected = {"format": FORMAT, "key": self.key, "shape": list(self.shape)}
            whole = self._path.exists() and self._path.stat().st_size == self.shape[0] * self._row_bytes
            if isinstance(value, dict) and expected.items() <= value.items() and whole:
                for begin, end in value["known"]:
                    known_N[begin:end] = True
            else:
                self._record.unlink()  # before the rows change
        return known_N

    def __getitem__(self, places_n: np.ndarray) -> np.ndarray:
        rows_nD = np.empty((len(places_n), self.shape[1]), self.dtype)
        for at, run in _runs(places_n):
            wanted = len(run) * self._row_bytes
            found = os.pread(self._handle, wanted, int(run[0]) * self._row_bytes)
            assert len(found) == wanted, f"{self._path} has become shorter"
            rows_nD[at : at + len(run)] = np.frombuffer(found, self.dtype).reshape(len(run), -1)
        return rows_nD

    def __setitem__(self, places_n: np.ndarray, rows_nD: np.ndarray) -> None:
        assert rows_nD.dtype == self.dtype
        for at, run in _runs(places_n):
            content = memoryview(rows_nD[at : at + len(run)].tobytes())
            offset = int(run[0]) * self._row_bytes
            try:
                while content:
                    done = os.pwrite(self._handle, content, offset)
                    content, offset = content[done:], offset + done
            except OSError as err:
                raise self._unwritable(err) from None

    def keep(self) -> None:
        """Put the rows that are known on disk, and then the record of them."""
        known = [[int(run[0]), int(run[-1]) + 1] for _, run in _runs(np.flatnonzero(self.known_N))]
        try:
            os.fsync(self._handle)
            write_json(self._record, {"format": FORMAT, "key": self.key, "shape": self.shape, "known": known})
        except OSError as err:
            raise self._unwritable(err) from None

    def whole(self) -> np.ndarray:
        """Return all rows [N, D], mapped from the file, read-only."""
        with os.fdopen(os.dup(self._handle), "rb") as file:
            return np.memmap(file, self.dtype, "r", shape=self.shape)

    def adopt(self, world: World) -> None:
        """Take over what processes of a larger world have left under the same key, and remove their files."""
        pattern = re.compile(rf"bank_{self.key[:NAME_DIGITS]}_r(\d+)\.json")
        for path in sorted(self._record.parent.iterdir()):
            found = pattern.fullmatch(path.name)
            if not found or int(found[1]) < world.size or int(found[1]) % world.size != world.rank:
                continue
            other = VectorBank(self._record.parent, self.key, int(found[1]), self.shape)
            for places_n in cut_places(np.flatnonzero(other.known_N & ~self.known_N), self._row_bytes):
                self[places_n] = other[places_n]
                self.known_N[places_n] = True
            self.keep()
            other.remove()

    def close(self) -> None:
        """Let go of the file; it stays for the next run."""
        os.close(self._handle)

    def remove(self) -> None:
        """Close and delete the files, the record first; a matrix that `whole` has returned stays readable."""
        self.close()
        self._record.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        remove_leftovers(self._path.parent, re.escape(self._record.name))

    def _unwritable(self, err: OSError) -> DataError:
        needed = written(self.shape[0] * self._row_bytes)
        return DataError(
            f"{self._path}: cannot be written: {err.strerror}. The vectors of all videos take {needed} there; make "
            "room, or choose another `fairseq.checkpoint.save_dir`."
        )


def remove_other_banks(folder: str | Path, key: str) -> None:
    """Remove the banks of other keys, which dead runs have left."""
    folder, own = Path(folder), re.escape(key[:NAME_DIGITS])
    for path in sorted(folder.glob("bank_*_r*.*"), key=lambda path: path.suffix == ".f16"):  # records first
        if re.fullmatch(rf"bank_(?!{own}_).*\.(f16|json)", path.name):
            path.unlink(missing_ok=True)
    remove_leftovers(folder, rf"bank_(?!{own}_)[^.]*\.json")


def _runs(places_n: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, places) of every stretch of consecutive places."""
    cuts = (np.flatnonzero(np.diff(places_n) != 1) + 1).tolist()
    for begin, end in pairwise([0, *cuts, len(places_n)]):
        if begin < end:
            yield begin, places_n[begin:end]
