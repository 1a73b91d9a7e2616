"""Members of a downloaded archive, each moved to its own place under the root."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mmpt.errors import DataError


def unpack_members(archive: Path, places: Mapping[Path, str]) -> None:
    """Unpacks `archive` into a temporary folder and moves some of its members to their places.

    Args:
        archive: a .zip or .tar.gz file.
        places: where each member goes, and the end of its path in the archive.
    Raises:
        DataError: a damaged archive, one with a member that lies outside of it, or one that does
            not have exactly one member of each name.
    """
    folder = archive.with_name(f".{archive.name}.unpacked")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        _unpack(archive, folder)
        found = {place: _find(archive, folder, member) for place, member in places.items()}
        for place, path in found.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.tmp")
            shutil.move(path, temporary)  # copies if the place is on another file system
            os.replace(temporary, place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    damage = (zipfile.BadZipFile, tarfile.TarError, shutil.ReadError, zlib.error, EOFError)
    try:
        if zipfile.is_zipfile(archive):
            _check_members(archive)
            shutil.unpack_archive(archive, folder, "zip")
        else:
            shutil.unpack_archive(archive, folder, "gztar", filter="data")
    except tarfile.FilterError as err:
        raise DataError(f"{archive}: must not write outside of its folder, but {err}.") from err
    except (*damage, NotImplementedError, RuntimeError) as err:
        raise DataError(
            f"{archive}: cannot be unpacked ({err}). Download it again with `--force`."
        ) from err


def _check_members(archive: Path) -> None:
    """Checks the paths in a .zip, of which shutil would silently skip those that lead outside."""
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise DataError(
                    f"{archive}: must not write outside of its folder, but has a member {name!r}."
                )


def _find(archive: Path, folder: Path, member: str) -> Path:
    found = [path for path in folder.rglob(member) if path.is_file()]
    if len(found) != 1:
        names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        raise DataError(
            f"{archive}: must hold one {member}, but holds {len(found)} (its members: "
            f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''})."
        )
    return found[0]
