"""Single members of a downloaded archive, each to its own place; nothing else of the archive reaches the disk."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write


def unpack_member(archive: Path, member: str, target: Path) -> None:
    """Write the member whose path is `member`, or ends in it, to `target`, atomically.

    Args:
        archive: a .zip or .tar.gz file.
    Raises:
        DataError: damaged, or no such member, or several.
    """
    try:
        with _open_member(archive, member) as source, atomic_write(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as err:
        raise DataError(f"{archive}: cannot be unpacked ({err}); download it again with `--force`.") from err


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed, packed.open(_find(archive, packed.namelist(), member)) as source:
            yield source
        return
    with tarfile.open(archive) as packed_tar:
        names = [info.name for info in packed_tar.getmembers() if info.isfile()]
        found = packed_tar.extractfile(_find(archive, names, member))
        assert found is not None, "a regular file has content"
        with found as source:
            yield source


def _find(archive: Path, names: list[str], member: str) -> str:
    fitting = [name for name in names if f"/{name}".endswith(f"/{member}")]
    if len(fitting) != 1:
        have = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
        raise DataError(f"{archive}: must hold one {member}, but holds {len(fitting)} (its members: {have}).")
    return fitting[0]
