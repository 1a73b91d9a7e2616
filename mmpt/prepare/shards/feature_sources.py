"""Finds the features of single videos, in files of several kinds.

A source is one of these:

- a folder with a file per video, also in sub-folders (`SUFFIXES`);
- a tar or a folder of tars with a file per video, as WebDataset writes them;
- an HDF5 file with a data set per video;
- an LMDB folder or file with a value per video (lmdb_folder.py);
- a single file of {video id: array}: a pickle, an `.npz` file, or a file of torch.
"""

import os
import tarfile
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from mmpt.errors import DataError, first_line
from mmpt.media.video_list import VIDEO_SUFFIXES
from mmpt.prepare.shards.feature_arrays import (
    PICKLE_SUFFIXES,
    SUFFIXES,
    FeatureError,
    Kind,
    Place,
    lacks_array,
    read_mapping,
    suffix_of,
)
from mmpt.prepare.shards.lmdb_folder import (
    check_lmdb,
    list_keys,
    lmdb_file,
    require_package,
)

HDF5_SUFFIXES = (".h5", ".hdf5")
TORCH_TAR = ".pth.tar"
NO_FILES = "no feature files (an .h5 file must hold all videos, and be named itself)"
"""Content of a source without features. A folder with an HDF5 file per video is not read."""
ONE_FILE = (Kind.HDF5, Kind.LMDB, Kind.MAPPING)
"""Kinds of files that hold all videos by key."""


class Entry(NamedTuple):
    """A feature file in a folder or tar."""

    name: str
    """Path inside the folder or tar, without suffix."""
    suffix: str
    place: Place

    @property
    def readings(self) -> dict[str, str]:
        """Ids that the video may have, each with the name of the array.

        An id is the name with or without the folder and a video's suffix. Some programs keep this
        suffix, as in `<id>.mp4.npy`. In a tar the id may also end at the first dot, as in
        WebDataset, and the rest is the name of the array: `<id>.clip.npy` is the array `clip`.
        Otherwise this name is empty.
        """
        folder, _, name = self.name.rpartition("/")
        arrays = dict.fromkeys(_possible_ids(name), "")
        if self.place.kind is Kind.TAR:
            start, _, rest = name.partition(".")
            arrays.setdefault(start, rest)
        if not folder:
            return arrays
        in_folder = {f"{folder}/{each}": array for each, array in arrays.items()}
        return in_folder | arrays


def _possible_ids(name: str) -> list[str]:
    """Returns a name, and the name without the suffix of a video if it has one."""
    stem, dot, ending = name.rpartition(".")
    has_suffix = stem and f"{dot}{ending.lower()}" in VIDEO_SUFFIXES
    return [name, stem] if has_suffix else [name]


def check_id(video_id: str) -> None:
    """Raises FeatureError if an id, which may contain slashes, leads out of a folder."""
    id_path = PurePosixPath(video_id)
    leads_out = id_path.is_absolute() or ".." in id_path.parts
    if leads_out or "\0" in video_id:
        raise FeatureError("the id leads out of the feature folder")


def find_places(
    source: Path, ids: Collection[str], key: str | None = None
) -> dict[str, Place]:
    """Returns the places of the videos that the source has.

    In HDF5 and LMDB files all ids have a place, because the groups in a group are not searched.

    Args:
        key: name of the array, if a video has several.
    Raises:
        DataError: there is no such source, it is of another kind, or has two files of a video.
    """
    path, kind = _kind_of(source)
    if kind in ONE_FILE:
        keys = _match_keys(path, _keys_in(path, kind, key), ids)
        if kind is not Kind.MAPPING:
            keys = {video_id: keys.get(video_id, video_id) for video_id in ids}
        found = [video_id for video_id in ids if video_id in keys]
        return {video_id: Place(path, keys[video_id], kind=kind) for video_id in found}
    files = _match(_entries(path, kind), ids)
    found = [video_id for video_id in ids if video_id in files]
    return {video_id: _choose(files[video_id], key) for video_id in found}


def list_ids(
    source: Path, key: str | None = None, known: Container[str] = ()
) -> Iterator[str]:
    """Yields the ids of all features in a source.

    Args:
        key: name of a group in an HDF5 file.
        known: ids that are preferred if the name of a file has several readings.
    Raises:
        DataError: it cannot be read.
    """
    path, kind = _kind_of(source)
    possible: Iterable[list[str]]
    if kind in ONE_FILE:
        possible = map(_possible_ids, _keys_in(path, kind, key))
    else:
        possible = (list(entry.readings) for entry in _entries(path, kind))
    for ids in possible:
        yield next((each for each in ids if each in known), ids[-1])


def _keys_in(path: Path, kind: Kind, key: str | None) -> Iterator[str]:
    """Yields the keys of a file for all videos.

    Args:
        key: name of a group in an HDF5 file.
    Raises:
        DataError: it cannot be read.
    """
    if kind is Kind.LMDB:
        yield from list_keys(path)
    elif kind is Kind.HDF5:
        h5py = require_package("h5py", path)
        try:
            with h5py.File(path, "r") as file:
                group = file.get(key or "/")
                yield from group if isinstance(group, h5py.Group) else file
        except (OSError, RuntimeError) as err:
            reason = first_line(err)
            raise DataError(
                f"{path}: cannot be read ({reason}). Copy it again."
            ) from err
    else:
        yield from read_mapping(path)


def _match_keys(path: Path, keys: Iterable[str], ids: Iterable[str]) -> dict[str, str]:
    """Returns the keys of the videos in a file. A key may have a video's suffix after the id.

    Raises:
        DataError: a video has two keys.
    """
    wanted = set(ids)
    found: dict[str, str] = {}
    for key in keys:
        video_id = next((each for each in _possible_ids(key) if each in wanted), None)
        if video_id is None:
            continue
        other = found.setdefault(video_id, key)
        if other != key:
            raise DataError(
                f"{path}: a video must have one entry, but `{video_id}` has `{other}` and `{key}`. "
                "Remove one of them."
            )
    return found


def _kind_of(source: Path) -> tuple[Path, Kind]:
    """Returns the path that is read, and its kind. A folder of single files is `Kind.SINGLE`.

    Raises:
        DataError: there is no such source, it cannot be read, or it is of another kind.
    """
    if not os.path.exists(source):
        raise DataError(f"{source}: does not exist. Correct the path.")
    lmdb = lmdb_file(source)
    if lmdb is not None:
        check_lmdb(lmdb)
        return lmdb, Kind.LMDB
    if source.is_dir():
        return source, Kind.TAR if _tars_in(source) else Kind.SINGLE
    name = source.name.lower()
    if name.endswith(HDF5_SUFFIXES):
        require_package("h5py", source)
        return source, Kind.HDF5
    if name.endswith(".tar") and not name.endswith(TORCH_TAR):
        return source, Kind.TAR
    if suffix_of(name) not in ("", ".npy"):
        return source, Kind.MAPPING
    raise DataError(
        f"{source}: must be a folder of feature files, of tars or of LMDB, or a .tar, .h5 or LMDB "
        "file, or a .pkl, .pth or .npz file of {video id: array}, but is none. Extract the "
        "features first, or correct the path."
    )


def _tars_in(folder: Path) -> list[Path]:
    tars = sorted(folder.glob("*.tar"))
    return [path for path in tars if not path.name.lower().endswith(TORCH_TAR)]


def _entries(path: Path, kind: Kind) -> Iterator[Entry]:
    """Yields the feature files in a folder, or in a tar or a folder of tars."""
    if kind is Kind.SINGLE:
        yield from _files_in(path)
        return
    for tar in _tars_in(path) if path.is_dir() else [path]:
        yield from _members_of(tar)


def _files_in(folder: Path) -> Iterator[Entry]:
    """Yields the feature files in a folder and its sub-folders, except hidden ones."""
    seen = set()  # a link may lead back
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        parent = Path(here)
        inside = parent.relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        # A folder with the name of a feature file is reported when it is read.
        for name in sorted([*folders, *files]):
            suffix = suffix_of(name)
            if suffix:
                stem = name[: -len(suffix)]
                yield Entry(f"{prefix}{stem}", suffix, Place(parent / name))


def _members_of(path: Path) -> Iterator[Entry]:
    """Yields the feature files in a tar.

    Raises:
        DataError: the tar is damaged or compressed.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                suffix = suffix_of(member.name)
                if not member.isfile() or suffix in ("", *PICKLE_SUFFIXES):
                    continue
                name = member.name.removeprefix("./")[: -len(suffix)]
                where = member.offset_data, member.size
                yield Entry(name, suffix, Place(path, member.name, *where, Kind.TAR))
    except tarfile.TarError as err:
        raise DataError(
            f"{path}: must be a tar without compression, but cannot be read ({err})."
        ) from err


def _match(entries: Iterable[Entry], ids: Iterable[str]) -> dict[str, dict[str, Entry]]:
    """Returns the feature files of the videos: id -> name of the array -> file.

    If files have the same name, the first kind in `SUFFIXES` counts, and of the same kind the last
    file.

    Raises:
        DataError: there are files with other names, or in two folders, of the same array.
    """
    wanted = set(ids)
    found: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        readings = entry.readings
        video_id = next((each for each in readings if each in wanted), None)
        if video_id is None:
            continue
        array = readings[video_id]
        arrays = found.setdefault(video_id, {})
        other = arrays.get(array, entry)
        if other.name != entry.name:
            raise DataError(
                f"{entry.place}: a video must have one feature file, but `{video_id}` also has "
                f"{other.place}. Remove one of them."
            )
        if SUFFIXES.index(entry.suffix) <= SUFFIXES.index(other.suffix):
            arrays[array] = entry
    return found


def _choose(arrays: Mapping[str, Entry], key: str | None) -> Place:
    """Returns the place of the array that is called `key`, or that needs no name.

    If there is none, the place has the problem, which is reported when the array is read.

    Args:
        arrays: the files of a video, by the name of the array. It is empty for `<id>.npy`.
    """
    # A file with the name of the id comes before `<id>.<name>.npy`, which may be another video.
    for name in (key or "", ""):
        if name in arrays:
            return arrays[name].place
    first, *others = arrays.values()
    # The key may also be the name of an array inside the file, but an .npy file has no names.
    if not others and (key is None or first.suffix != ".npy"):
        return first.place
    return first.place._replace(problem=lacks_array(arrays, key))
