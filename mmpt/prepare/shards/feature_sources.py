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
from collections.abc import Collection, Container, Iterable, Iterator
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


class Entry(NamedTuple):
    """A feature file in a folder or tar."""

    name: str
    """Path inside the folder or tar, without suffix."""
    suffix: str
    place: Place

    @property
    def folder(self) -> str:
        """The folder inside the folder or tar."""
        return self.name.rpartition("/")[0]

    @property
    def ids(self) -> list[str]:
        """Ids that the video may have: with or without the folder and a video's suffix.

        Some programs keep this suffix, as in `<id>.mp4.npy`. In a tar the id may also end at the
        first dot of the name, as in WebDataset.
        """
        _, _, name = self.name.rpartition("/")
        names = [name]
        stem, dot, ending = name.rpartition(".")
        if stem and f"{dot}{ending.lower()}" in VIDEO_SUFFIXES:
            names.append(stem)
        if self.place.kind is Kind.TAR:
            names.append(name.partition(".")[0])
        if not self.folder:
            return names
        return [*(f"{self.folder}/{each}" for each in names), *names]


def check_id(video_id: str) -> None:
    """Raises FeatureError if an id, which may contain slashes, leads out of a folder."""
    id_path = PurePosixPath(video_id)
    leads_out = id_path.is_absolute() or ".." in id_path.parts
    if leads_out or "\0" in video_id:
        raise FeatureError("the id leads out of the feature folder")


def find_places(source: Path, ids: Collection[str]) -> dict[str, Place]:
    """Returns the places of the videos that the source has.

    HDF5 and LMDB files are not searched: all ids have a place in them.

    Raises:
        DataError: there is no such source, it is of another kind, or has two files of a video.
    """
    path, kind = _kind_of(source)
    if kind in (Kind.HDF5, Kind.LMDB):
        return {video_id: Place(path, video_id, kind=kind) for video_id in ids}
    if kind is Kind.MAPPING:
        arrays = read_mapping(path)
        found = [video_id for video_id in ids if video_id in arrays]
        return {video_id: Place(path, video_id, kind=kind) for video_id in found}
    entries = _match(_entries(path, kind), ids)
    return {
        video_id: entries[video_id].place for video_id in ids if video_id in entries
    }


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
    elif kind is Kind.MAPPING:
        yield from read_mapping(path)
    else:
        for entry in _entries(path, kind):
            yield next((each for each in entry.ids if each in known), entry.ids[-1])


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


def _match(entries: Iterable[Entry], ids: Iterable[str]) -> dict[str, Entry]:
    """Returns the feature files of the videos.

    In one folder, the first kind in `SUFFIXES` counts, and of the same kind the last file.

    Raises:
        DataError: two folders have a file of the same video.
    """
    wanted = set(ids)
    found: dict[str, Entry] = {}
    for entry in entries:
        video_id = next((each for each in entry.ids if each in wanted), None)
        if video_id is None:
            continue
        other = found.get(video_id, entry)
        if other.folder != entry.folder:
            raise DataError(
                f"{entry.place}: a video must have one feature file, but `{video_id}` also has "
                f"{other.place}. Remove one of them."
            )
        if SUFFIXES.index(entry.suffix) <= SUFFIXES.index(other.suffix):
            found[video_id] = entry
    return found
