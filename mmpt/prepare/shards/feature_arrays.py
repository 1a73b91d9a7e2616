"""Reads the array at a place: a file, or an entry of a file with several videos.

No code in a file is run. A file that cannot be used raises FeatureError, whatever is wrong with it.
"""

import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpt.errors import DataError, first_line
from mmpt.prepare.shards.lmdb_folder import HERO_KEY, read_value
from mmpt.utils.io import MULTIARRAY, NPY_ERRORS, load_plain_pickle

TORCH_SUFFIXES = (".pt", ".pth", ".pth.tar")
"""Files of torch.save. Older projects call them `.pth.tar`, but they are not tar archives."""
PICKLE_SUFFIXES = (".pkl", ".pickle")
SUFFIXES = (".npy", ".npz", *TORCH_SUFFIXES, *PICKLE_SUFFIXES)
"""Kinds of files of one video. If a video has several, the first kind counts."""
MAX_LISTED = 5  # names listed in a message


class FeatureError(Exception):
    """The features of a video cannot be used.

    Args:
        reason: why they cannot.
        is_temporary: a later attempt may succeed with the same file.
    """

    def __init__(self, reason: str, is_temporary: bool = False):
        super().__init__(reason)
        self.is_temporary = is_temporary


class Kind(Enum):
    """A kind of file."""

    SINGLE = "the file of one video"
    TAR = "a tar with a file per video"
    HDF5 = "an HDF5 file with a data set per video"
    LMDB = "an LMDB file with a value per video"
    MAPPING = "a file of {video id: array}"


class Place(NamedTuple):
    """The place of a video's features."""

    path: Path
    """The file."""
    entry: str | None = None
    """Name of the data set in an HDF5 file, or of the file in a tar, or key in another file."""
    offset: int = 0
    """First byte in the tar."""
    size: int = 0
    """Number of bytes in the tar."""
    kind: Kind = Kind.SINGLE
    problem: str = ""
    """Why the array cannot be read, if this is known before the file is opened."""

    def state(self) -> tuple[Any, ...]:
        """Returns the size and the modification time of the file, and the place in it."""
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        inside = () if self.entry is None else (self.entry, self.offset)
        problems = (self.problem,) if self.problem else ()
        return status.st_size, status.st_mtime_ns, *inside, *problems

    def __str__(self) -> str:
        return str(self.path) if self.entry is None else f"{self.path}: {self.entry}"


def suffix_of(name: str) -> str:
    """Returns the suffix of a feature file, which may have two dots. Empty: it is none."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    return ""


def read_array(place: Place, key: str | None = None) -> np.ndarray:
    """Returns the array at a place.

    Args:
        key: name of the array, if a video has several.
    Raises:
        FeatureError: the file is missing, damaged or of another kind, or has no such array.
    """
    if place.problem:
        raise FeatureError(place.problem)
    path, entry = place.path, place.entry or ""
    suffix = suffix_of(entry if place.kind is Kind.TAR else path.name)
    found: Any
    with _feature_errors():
        if place.kind is Kind.HDF5:
            return _only_array(_read_hdf5(path, entry, key), None)
        if place.kind is Kind.LMDB:
            found = read_value(path, entry)
            if key is None and isinstance(found, Mapping) and HERO_KEY in found:
                key = HERO_KEY
            return _only_array(found, key)
        if place.kind is Kind.MAPPING:
            found = read_mapping(path)[entry]
        elif place.kind is Kind.TAR:
            with open(path, "rb") as file:
                file.seek(place.offset)
                found = _load(io.BytesIO(file.read(place.size)), suffix)
        else:
            found = _load(path, suffix)
        if suffix in TORCH_SUFFIXES and isinstance(found, Mapping):
            found = {name: value for name, value in found.items() if _is_array(value)}
        in_name = place.kind is Kind.TAR and entry[: -len(suffix)].endswith(f".{key}")
        if in_name and isinstance(found, Mapping) and key not in found:
            key = None  # it is in the name of the file, as in `<id>.<key>.npz`
        return _only_array(found, key)


@contextmanager
def _feature_errors() -> Iterator[None]:
    """Converts errors of reading a file to FeatureError."""
    try:
        yield
    except FileNotFoundError:
        raise FeatureError("no such file") from None
    except DataError as err:
        raise FeatureError(str(err)) from None
    except OSError as err:
        raise FeatureError(
            f"cannot be read ({err.strerror or err})", is_temporary=True
        ) from None
    except (*NPY_ERRORS, zipfile.BadZipFile, zlib.error) as err:
        # Without NumPy's advice to allow pickled code.
        reason, _, _ = str(err).partition(". ")
        raise FeatureError(f"not a complete .npy or .npz file ({reason})") from None


def read_mapping(path: Path) -> Mapping[str, Any]:
    """Returns the arrays of all videos in one file, by id. The last file stays in memory.

    Raises:
        DataError: the file is damaged or holds something else.
    """
    return _read_mapping(path, Place(path).state())


@lru_cache(maxsize=1)
def _read_mapping(path: Path, _: tuple[Any, ...]) -> Mapping[str, Any]:
    try:
        with _feature_errors():
            found = _load(path, suffix_of(path.name))
    except FeatureError as err:
        reason = str(err).removeprefix(f"{path}: ")
        raise DataError(f"{path}: {reason}") from None
    if not isinstance(found, Mapping):
        raise DataError(
            f"{path}: must hold a mapping of video ids to arrays, but holds a "
            f"{type(found).__name__}. Name the folder instead if it is the file of one video."
        )
    if isinstance(found, np.lib.npyio.NpzFile):
        return found  # reads each array when it is asked for
    return {_text(name): value for name, value in found.items()}


def _text(name: Any) -> str:
    """Returns the name of an array as text."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _load(file: Path | io.BytesIO, suffix: str) -> Any:
    """Returns the content of a feature file."""
    if suffix in TORCH_SUFFIXES:
        return _load_torch(file)
    if suffix in PICKLE_SUFFIXES and isinstance(file, Path):
        return load_plain_pickle(file, arrays=True)
    return np.load(file, allow_pickle=False)


def _load_torch(file: Path | io.BytesIO) -> Any:
    """Returns the content of a file of torch.save, which may contain tensors and NumPy arrays."""
    # deferred: takes seconds
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as err:  # with damaged files torch raises almost any error
        reason, _, _ = first_line(err).partition(". ")
        if reason == "Weights only load failed":  # and advice to allow code
            reason = (
                "it is damaged, or has objects other than tensors and arrays of numbers"
            )
        raise FeatureError(
            f"torch cannot read it without running its code ({reason}); save tensors, or .npy files"
        ) from None


@lru_cache(maxsize=1)
def _numpy_globals() -> list[Any]:
    """Returns the classes and the function of NumPy that a pickled array of numbers needs."""
    reconstruct = np.empty(0).__reduce__()[0]
    functions = [(reconstruct, f"{module}._reconstruct") for module in MULTIARRAY]
    numbers = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    dtypes = {type(np.dtype(code)) for code in numbers}
    return [np.ndarray, np.dtype, *dtypes, *functions]


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")  # torch need not be imported


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _only_array(found: Any, key: str | None) -> np.ndarray:
    """Returns the array in a file: the only one, or the one called `key`."""
    if isinstance(found, np.ndarray):
        return found
    if _is_tensor(found):
        return _tensor_as_array(found)
    if not isinstance(found, Mapping):
        raise FeatureError(f"holds a {type(found).__name__} instead of an array")
    names = {_text(name): name for name in found}
    if key is None and len(names) == 1:
        (key,) = names
    if key is None or key not in names:
        raise FeatureError(lacks_array(names, key))
    return _only_array(found[names[key]], None)


def lacks_array(names: Iterable[str], key: str | None) -> str:
    """Returns why none of several arrays is used.

    Args:
        names: names of the arrays.
        key: name of the wanted array, if it was given.
    """
    listed = ", ".join(names) or "none"
    wanted = "one array" if key is None else f"an array `{key}`"
    return f"must hold {wanted}, but holds {listed}; name one with --key"


def _tensor_as_array(tensor: Any) -> np.ndarray:
    """Returns the array of a tensor of torch. A tensor in bfloat16 becomes float32."""
    import torch  # already imported with the file

    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        array: np.ndarray = tensor.numpy(force=True)
    except (TypeError, RuntimeError, NotImplementedError):
        what = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise FeatureError(
            f"holds a tensor that NumPy cannot represent ({what}); save it as float32"
        ) from None
    return array


def _read_hdf5(path: Path, entry: str, key: str | None) -> Any:
    """Returns the data set of a video: `<id>`, or `<id>/<key>` or `<key>/<id>`."""
    import h5py  # deferred: it is optional

    with h5py.File(path, "r") as file:
        names = [entry, f"{entry}/{key}", f"{key}/{entry}"]
        try:
            for name in names if key else names[:1]:
                if name in file and isinstance(file[name], h5py.Dataset):
                    return file[name][()]
            # The id may be a group itself, or be in one of the groups at the top.
            group = file.get(entry, file)
            listed = ", ".join(islice(group, MAX_LISTED))
        except (KeyError, RuntimeError, TypeError, ValueError) as err:
            raise FeatureError(f"h5py does not read it ({first_line(err)})") from None
        more = ", ..." if len(group) > MAX_LISTED else ""
        holder = "the file" if group is file else "the group of this id"
    under = f" or under the key `{key}`" if key else ""
    remedy = "correct --key" if key else "if it is in a group, give --key"
    raise FeatureError(
        f"no data set of this id{under}; {holder} has {listed or 'nothing'}{more}; {remedy}"
    )
