"""Downloaded files from the inside: checks of their kind, and members of archives."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write

END_BYTES = 512  # of either end of a file
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
ZIP = b"PK\x03\x04"
# Ending of a name -> the first bytes after white space and a byte order mark. Other files may begin
# with anything but a web page.
STARTS = {
    ".pt": (ZIP, *PICKLE),
    ".pth": (ZIP, *PICKLE),
    ".npy": (b"\x93NUMPY",),
    ".json": (b"{", b"["),
    ".zip": (ZIP,),
    ".gz": (b"\x1f\x8b",),
    ".pkl": PICKLE,
}
# The last bytes before white space.
ENDS = {".json": (b"}", b"]"), ".pkl": (b".",)}
# What a damaged or encrypted archive raises.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError)
WEB_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def check_kind(path: Path, suffix: str) -> None:
    """Checks that a file is what its name says, by its first and last bytes.

    Many servers answer with a web page instead of a file, or with a part of it as if it were all.

    Args:
        suffix: the ending of its name.
    Raises:
        DataError: an empty file, a web page, a file of another kind, or one without its end. The
            message does not name the file.
    """
    with open(path, "rb") as file:
        head = file.read(END_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(max(path.stat().st_size - END_BYTES, 0))
        tail = file.read().rstrip()
    begin = repr(head[:32].decode("utf-8", errors="backslashreplace"))
    if not head:
        reason = "is empty"
    elif head.lower().startswith(WEB_PAGES):
        reason = f"is a web page ({begin})"
    elif not head.startswith(STARTS.get(suffix, b"")):
        reason = f"begins with {begin}"
    elif not tail.endswith(ENDS.get(suffix, b"")) or (
        head.startswith(ZIP) and not zipfile.is_zipfile(path)
    ):
        reason = "is cut short"
    else:
        return
    raise DataError(f"must be a {suffix} file, but {reason}")


def unpack_members(archive: Path, places: Mapping[str, Path]) -> None:
    """Writes some members of `archive` to their places.

    Args:
        archive: a .zip or .tar.gz file.
        places: name of each member, without its folder in the archive, and where it goes.
    Raises:
        DataError: a damaged archive, or one that does not have exactly one member of each name.
    """
    packed: Any
    try:
        if zipfile.is_zipfile(archive):
            packed = zipfile.ZipFile(archive)
            names, read = packed.namelist(), packed.open
        else:
            packed = tarfile.open(archive)  # noqa: SIM115  # closed below
            names = [member.name for member in packed.getmembers() if member.isfile()]
            read = packed.extractfile
        with packed:
            found = {}
            for member in places:
                matching = [name for name in names if PurePosixPath(name).name == member]
                if len(matching) != 1:
                    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
                    raise DataError(
                        f"{archive}: must hold one {member}, but holds {len(matching)} (its "
                        f"members: {shown})."
                    )
                found[member] = matching[0]
            for member, place in places.items():
                with read(found[member]) as source, atomic_write(place, "wb") as target:
                    shutil.copyfileobj(source, target)
    except DAMAGE as err:
        raise DataError(
            f"{archive}: cannot be unpacked ({err}). Download it again with `--force`."
        ) from err
