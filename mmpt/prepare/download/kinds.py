"""Checks that a file is what its name says, by its first and last bytes.

Many servers answer with a web page instead of a file, or with a part of it as if it were all.
"""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePath
from typing import Literal

from mmpt.errors import DataError

Kind = Literal["torch", "npy", "json", "zip", "tar.gz", "pickle", "text"]

END_BYTES = 512  # of either end of a file
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
ZIP = b"PK\x03\x04"
# The first bytes after white space and a byte order mark; a kind without an entry may have any.
STARTS: dict[Kind, tuple[bytes, ...]] = {
    "torch": (ZIP, *PICKLE),
    "npy": (b"\x93NUMPY",),
    "json": (b"{", b"["),
    "zip": (ZIP,),
    "tar.gz": (b"\x1f\x8b",),
    "pickle": PICKLE,
}
# The last bytes before white space.
ENDS: dict[Kind, tuple[bytes, ...]] = {"json": (b"}", b"]"), "pickle": (b".",)}
WEB_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def check_kind(path: Path, kind: Kind, name: str) -> None:
    """Checks the first and last bytes of the file at `path`.

    Args:
        name: the file's name in messages.
    Raises:
        DataError: an empty file, a web page, a file of another kind, or one without its end.
    """
    with open(path, "rb") as file:
        head = file.read(END_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
        file.seek(max(path.stat().st_size - END_BYTES, 0))
        tail = file.read().rstrip()
    if not head:
        raise DataError(f"{name}: must be a {kind} file, but is empty.")
    if head.lower().startswith(WEB_PAGES):
        raise DataError(f"{name}: must be a {kind} file, but is a web page ({_shown(head[:32])}).")
    if not head.startswith(STARTS.get(kind, b"")):
        raise DataError(f"{name}: must be a {kind} file, but begins with {_shown(head[:32])}.")
    if not tail.endswith(ENDS.get(kind, b"")):
        raise DataError(
            f"{name}: a {kind} file that is cut short: it ends in {_shown(tail[-16:])}."
        )
    if head.startswith(ZIP) and not zipfile.is_zipfile(path):
        raise DataError(f"{name}: a {kind} file that is cut short: its directory is missing.")


def kind_of(name: str) -> Kind:
    """Returns the kind of a file inside a folder or an archive, by its name."""
    kinds: dict[str, Kind] = {".json": "json", ".pkl": "pickle"}
    return kinds.get(PurePath(name).suffix, "text")


def _shown(data: bytes) -> str:
    return repr(data.decode("utf-8", errors="backslashreplace"))
