"""Checks the kind of downloaded files, and unpacks members of archives."""

import codecs
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write

END_BYTES = 512  # bytes that are read from the beginning and from the end of a file
MAX_LISTED = 8  # members of an archive that a message lists
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
ZIP = b"PK\x03\x04"
# Suffix -> allowed first bytes, after white space and a byte order mark. Files with other suffixes
# may begin with anything except a web page.
STARTS = {
    ".pt": (ZIP, *PICKLE),
    ".pth": (ZIP, *PICKLE),
    ".npy": (b"\x93NUMPY",),
    ".json": (b"{", b"["),
    ".zip": (ZIP,),
    ".gz": (b"\x1f\x8b",),
    ".pkl": PICKLE,
}
# Suffix -> allowed last bytes, before white space.
ENDS = {".json": (b"}", b"]"), ".pkl": (b".",)}
# The errors that a damaged or encrypted archive raises.
DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    RuntimeError,
)
WEB_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def check_kind(path: Path, suffix: str) -> None:
    """Checks by its first and last bytes that a file has the kind that its name says.

    Many servers send a web page instead of a file, or only a part of the file, without an error.

    Args:
        path: the file.
        suffix: the suffix of its final name.
    Raises:
        DataError: the file is empty, a web page, of another kind, or truncated. The message does
            not name the file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(END_BYTES)
        file.seek(max(size - END_BYTES, 0))
        tail = file.read()
    head = head.removeprefix(codecs.BOM_UTF8).lstrip()
    tail = tail.rstrip()
    beginning = head[:32].decode("utf-8", errors="backslashreplace")
    is_cut_zip = head.startswith(ZIP) and not zipfile.is_zipfile(path)
    if not head:
        reason = "is empty"
    elif head.lower().startswith(WEB_PAGES):
        reason = f"is a web page ({beginning!r})"
    elif not head.startswith(STARTS.get(suffix, b"")):
        reason = f"begins with {beginning!r}"
    elif is_cut_zip or not tail.endswith(ENDS.get(suffix, b"")):
        reason = "is cut short"
    else:
        return
    raise DataError(f"must be a {suffix} file, but {reason}")


def unpack_members(archive: Path, paths: Mapping[str, Path]) -> None:
    """Writes some members of an archive to files.

    Only the names of members are used, not their folders in the archive, so a member can never be
    written outside of the given paths.

    Args:
        archive: a .zip or .tar.gz file.
        paths: name of each member, without its folder -> the file to write.
    Raises:
        DataError: the archive is damaged, or does not have exactly one member of each name.
    """
    packed: Any
    try:
        if zipfile.is_zipfile(archive):
            packed = zipfile.ZipFile(archive)
            names = packed.namelist()
            open_member = packed.open
        else:
            packed = tarfile.open(archive)  # noqa: SIM115  # closed below
            names = [member.name for member in packed.getmembers() if member.isfile()]
            open_member = packed.extractfile
        with packed:
            # Find all members before the first one is written.
            found = {member: _find_member(archive, names, member) for member in paths}
            for member, path in paths.items():
                with (
                    open_member(found[member]) as source,
                    atomic_write(path, "wb") as target,
                ):
                    shutil.copyfileobj(source, target)
    except DAMAGE as err:
        raise DataError(
            f"{archive}: cannot be unpacked ({err}). Download it again with `--force`."
        ) from err


def _find_member(archive: Path, names: Sequence[str], wanted: str) -> str:
    """Returns the name in the archive, with folders, of the only member called `wanted`."""
    matching = [name for name in names if PurePosixPath(name).name == wanted]
    if len(matching) == 1:
        return matching[0]
    shown = ", ".join(names[:MAX_LISTED])
    if len(names) > MAX_LISTED:
        shown += ", …"
    raise DataError(
        f"{archive}: must hold one {wanted}, but holds {len(matching)} (its members: {shown})."
    )
