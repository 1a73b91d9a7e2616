"""Reads the features of single videos, from files of several kinds.

A source is a folder with a file per video (`.npy`, `.npz`, `.pt`, `.pth` or `.pkl`), an HDF5 file
with a data set per video, a tar or folder of tars with a `.npy` per video, as WebDataset writes
them, or an LMDB folder with a value per video (lmdb_folder.py). No code in a file is run.
"""

import io
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from mmpt.errors import DataError, first_line
from mmpt.prepare.shards.lmdb_folder import (
    DATA_FILE,
    HERO_KEY,
    check_lmdb,
    is_lmdb,
    read_value,
    require_package,
)
from mmpt.utils.io import NPY_ERRORS, load_plain_pickle

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".pkl", ".pickle")
"""Kinds of files of one video, in the order in which they are looked for."""
HDF5_SUFFIXES = (".h5", ".hdf5")


class FeatureError(Exception):
    """The features of a video cannot be used.

    Args:
        reason: why they cannot.
        is_temporary: a later attempt may succeed with the same file.
    """

    def __init__(self, reason: str, is_temporary: bool = False):
        super().__init__(reason)
        self.is_temporary = is_temporary


class Place(NamedTuple):
    """The place of a video's features."""

    path: Path
    """The file."""
    entry: str | None = None
    """Name of the data set in an HDF5 file, or of the file in a tar, or key in an LMDB folder."""
    offset: int = 0
    """First byte in the tar."""
    size: int = 0
    """Number of bytes in the tar."""

    def state(self) -> tuple[Any, ...]:
        """Returns the size and the modification time of the file, and the place in it."""
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        inside = () if self.entry is None else (self.entry, self.offset)
        return status.st_size, status.st_mtime_ns, *inside


def check_id(video_id: str) -> None:
    """Raises FeatureError if an id, which may contain slashes, leads out of a folder."""
    id_path = PurePosixPath(video_id)
    leads_out = id_path.is_absolute() or ".." in id_path.parts
    if leads_out or "\0" in video_id:
        raise FeatureError("the id leads out of the feature folder")


def find_places(source: Path, ids: Collection[str]) -> dict[str, Place]:
    """Returns the places of the videos that the source has.

    Raises:
        DataError: there is no such source, or it is of another kind.
    """
    if source.suffix.lower() in HDF5_SUFFIXES and source.is_file():
        require_package("h5py", source)
        return {video_id: Place(source, video_id) for video_id in ids}
    if source.suffix.lower() == ".tar" and source.is_file():
        return _places_in_tars([source], ids)
    if not source.is_dir():
        raise DataError(
            f"{source}: must be a folder of features, a .tar or an .h5 file, but is none. Extract "
            "them first, or correct the path."
        )
    if is_lmdb(source):
        check_lmdb(source)
        return {video_id: Place(source / DATA_FILE, video_id) for video_id in ids}
    tars = sorted(source.glob("*.tar"))
    if tars:
        return _places_in_tars(tars, ids)
    places = {}
    for video_id in ids:
        path = _file_of(source, video_id)
        if path is not None:
            places[video_id] = Place(path)
    return places


def _file_of(folder: Path, video_id: str) -> Path | None:
    """Returns the first file of a video that exists."""
    try:
        check_id(video_id)
    except FeatureError:
        return None  # reported when it is packed
    for suffix in SUFFIXES:
        path = folder / f"{video_id}{suffix}"
        if path.exists():
            return path
    return None


def _places_in_tars(tars: Iterable[Path], ids: Collection[str]) -> dict[str, Place]:
    """Returns the places of the `.npy` files of videos. The last one of an id counts.

    The id of a file is its path up to the first dot of its name, as in WebDataset; or, for ids with
    dots, up to `.npy`.
    """
    wanted = set(ids)
    places = {}
    for path in tars:
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if not member.isfile() or not member.name.endswith(".npy"):
                        continue
                    name = member.name.removeprefix("./").removesuffix(".npy")
                    folder, slash, file = name.rpartition("/")
                    before_dot, _, _ = file.partition(".")
                    short = f"{folder}{slash}{before_dot}"
                    video_id = name if name in wanted else short
                    if video_id in wanted:
                        where = member.offset_data, member.size
                        places[video_id] = Place(path, member.name, *where)
        except tarfile.TarError as err:
            raise DataError(
                f"{path}: must be a tar without compression, but cannot be read ({err})."
            ) from err
    return places


def read_array(place: Place, key: str | None = None) -> np.ndarray:
    """Returns the array at a place.

    Args:
        key: name of the array, if a file has several.
    Raises:
        FeatureError: the file is missing, damaged or of another kind, or has no such array.
    """
    suffix = place.path.suffix.lower()
    try:
        if place.entry is not None and suffix in HDF5_SUFFIXES:
            return _read_hdf5(place.path, place.entry, key)
        if place.entry is not None and place.path.name == DATA_FILE:
            value = read_value(place.path, place.entry)
            if key is None and isinstance(value, Mapping) and HERO_KEY in value:
                key = HERO_KEY
            return _only_array(value, key)
        if place.entry is not None:
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                content = io.BytesIO(file.read(place.size))
            return _only_array(np.load(content, allow_pickle=False), key)
        if suffix in (".pt", ".pth"):
            return _read_torch(place.path, key)
        if suffix in (".pkl", ".pickle"):
            return _only_array(load_plain_pickle(place.path, arrays=True), key)
        return _only_array(np.load(place.path, allow_pickle=False), key)
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


def _only_array(found: Any, key: str | None) -> np.ndarray:
    """Returns the array in a file: the only one, or the one called `key`."""
    if isinstance(found, np.ndarray):
        return found
    if not isinstance(found, Mapping):
        raise FeatureError(f"holds a {type(found).__name__} instead of an array")
    names = [str(name) for name in found]
    if key is None and len(names) == 1:
        key = names[0]
    if key is None or key not in names:
        listed = ", ".join(names)
        wanted = "one array" if key is None else f"an array `{key}`"
        raise FeatureError(
            f"must hold {wanted}, but holds {listed or 'none'}; name one with --key"
        )
    return _only_array(found[key], None)


def _read_torch(path: Path, key: str | None) -> np.ndarray:
    """Returns the tensor in a file of torch. A tensor in bfloat16 becomes float32."""
    # deferred: takes seconds
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as err:  # with damaged files torch raises almost any error
        reason = first_line(err)
        raise FeatureError(f"torch does not read it without code ({reason})") from None
    if isinstance(found, Mapping):
        found = {
            name: value
            for name, value in found.items()
            if isinstance(value, torch.Tensor)
        }
        if key is None and len(found) == 1:
            (found,) = found.values()
        elif key in found:
            found = found[key]
    if not isinstance(found, torch.Tensor):
        return _only_array(found, key)
    if found.dtype == torch.bfloat16:
        found = found.float()
    return found.numpy()


def _read_hdf5(path: Path, entry: str, key: str | None) -> np.ndarray:
    """Returns the data set of a video: `<id>`, or `<id>/<key>` or `<key>/<id>`."""
    import h5py  # deferred: it is optional

    with h5py.File(path, "r") as file:
        names = [entry, f"{entry}/{key}", f"{key}/{entry}"]
        for name in names if key else names[:1]:
            if name in file and isinstance(file[name], h5py.Dataset):
                array: np.ndarray = file[name][()]
                return array
    where = f" or under the key `{key}`" if key else "; if it is in a group, give --key"
    raise FeatureError(f"no data set of this id{where}")
