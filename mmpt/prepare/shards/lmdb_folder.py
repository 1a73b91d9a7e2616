"""Reads LMDB folders of features, as HERO writes them, and LMDB without a folder (`subdir=False`).

A key is the id of a video in UTF-8. A value is an `.npz` or `.npy` file, or msgpack in the form of
msgpack_numpy: an array is a map with `nd`, `type`, `shape` and `data`. The package msgpack_numpy
unpickles arrays of objects, so it is not used. No code in a value is run.
"""

import importlib
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.errors import DataError, first_line
from mmpt.utils.io import reading

DATA_FILE = "data.mdb"
HERO_KEY = "features"
"""Name of the array in HERO's values. Its `.npz` files also hold an array `allow_pickle`, because
older versions of NumPy stored this argument of `np.savez`.
"""
_NUMPY_FILES = (b"PK\x03\x04", b"\x93NUMPY")  # first bytes of .npz and .npy files
_FILE_SUFFIXES = (".mdb", ".lmdb")
_MAGIC = 0xBEEFC0DE.to_bytes(4, "little")  # bytes 16 to 20 of a data file
_TYPES = ("<f2", "<f4", "<f8", ">f2", ">f4", ">f8")


def lmdb_file(source: Path) -> Path | None:
    """Returns the data file in an LMDB folder, or `source` if it is one. None: it is neither."""
    path = source / DATA_FILE if source.is_dir() else source
    if not path.is_file():
        return None
    if path.name == DATA_FILE or path.suffix.lower() in _FILE_SUFFIXES:
        return path
    with reading(path), open(path, "rb") as file:
        return path if file.read(20)[16:] == _MAGIC else None


def check_lmdb(path: Path) -> None:
    """Checks that a data file can be read.

    Raises:
        DataError: the package lmdb is not installed, or the data file is damaged or incomplete.
    """
    lmdb = require_package("lmdb", path)
    try:
        with _open(lmdb, path) as env:
            num_pages = env.info()["last_pgno"] + 1
            num_bytes = num_pages * env.stat()["psize"]
    except lmdb.Error as err:
        raise DataError(
            f"{path}: must be the data file of LMDB, but cannot be read ({err}). Copy it again."
        ) from err
    # LMDB maps the file into memory. Reading after its end would kill the process.
    size = path.stat().st_size
    if size < num_bytes:
        raise DataError(
            f"{path}: must have {num_bytes} bytes, but has {size}. Copy it again."
        )


def read_value(path: Path, video_id: str) -> Any:
    """Returns what the value of a video holds: an array, or arrays by name.

    Args:
        path: the data file.
    Raises:
        DataError: there is no such value, it is of another kind, or a package is not installed.
        ValueError: an `.npz` or `.npy` file is damaged.
    """
    lmdb = require_package("lmdb", path)
    try:
        with _open(lmdb, path) as env, env.begin() as transaction:
            content = transaction.get(video_id.encode("utf-8", "surrogateescape"))
    except lmdb.Error as err:
        raise DataError(f"cannot be read ({err})") from err
    if content is None:
        raise DataError("no entry of this id")
    if content.startswith(_NUMPY_FILES):
        return np.load(io.BytesIO(content), allow_pickle=False)
    msgpack = require_package("msgpack", path)
    # With `raw`, all texts are bytes. Old versions of msgpack wrote both in the same way.
    try:
        return msgpack.unpackb(content, raw=True, object_hook=_array_or_map)
    except DataError:
        raise
    except (ValueError, TypeError) as err:
        reason = first_line(err)
        raise DataError(f"neither an .npz file nor msgpack ({reason})") from err


def list_keys(path: Path) -> Iterator[str]:
    """Yields all keys of a data file.

    Raises:
        DataError: it is damaged.
    """
    lmdb = require_package("lmdb", path)
    try:
        with _open(lmdb, path) as env, env.begin() as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield key.decode("utf-8", "replace")
    except lmdb.Error as err:
        raise DataError(f"{path}: cannot be read ({err}). Copy it again.") from err


def _open(lmdb: Any, path: Path) -> Any:
    """Opens an LMDB environment for reading. Creates no lock file."""
    return lmdb.open(
        str(path),
        subdir=False,
        readonly=True,
        create=False,
        lock=False,
        readahead=False,
    )


def _array_or_map(found: dict[Any, Any]) -> Any:
    """Returns the array that a map of msgpack_numpy describes; other maps get names as keys.

    Raises:
        DataError: the array has no floats, or another size than its shape.
    """
    if b"nd" not in found or b"data" not in found:
        return {_text(name): value for name, value in found.items()}
    # The data of other types are a pickle or have fields.
    name = _text(found.get(b"type"))
    if name not in _TYPES:
        raise DataError(
            f"an array in msgpack must hold floats, but has the type {name!r}; code in a file is "
            "not run"
        )
    dtype = np.dtype(name)
    shape = found.get(b"shape", ())
    data = found[b"data"]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise DataError(
            f"an array in msgpack must be {dtype} of shape {list(shape)}, but has {len(data)} bytes"
        )
    return np.frombuffer(data, dtype).reshape(shape)


def _text(name: Any) -> Any:
    """Returns a name as text."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def require_package(package: str, path: Path) -> Any:
    """Returns an optional package, with which a file is read.

    Raises:
        DataError: the package is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as err:
        raise DataError(
            f"{path}: reading it needs the package {package}, which is not installed: "
            f"pip install {package}"
        ) from err
