"""Whether a file is what its name says: its first bytes while it arrives, its whole structure at the end.

A server's word on a file's size is not enough: many answer with a web page, or with less than there is. So each kind
of file that is downloaded has a proof of being whole; only text and old (pickled) torch files have none.
"""

from __future__ import annotations

import gzip
import json
import math
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np

from mmpt.errors import DataError

Kind = Literal["torch", "npy", "json", "zip", "tar.gz", "pickle", "text"]

HEAD_BYTES = 512  # enough for every first look below
PARSED_BYTES = 200_000_000  # a JSON file up to this size is parsed, of a longer one only both ends are looked at
PICKLE = tuple(bytes((0x80, protocol)) for protocol in (2, 3, 4, 5))
ZIP = b"PK\x03\x04"
STARTS: dict[Kind, tuple[bytes, ...]] = {
    "torch": (ZIP, *PICKLE),
    "npy": (b"\x93NUMPY",),
    "zip": (ZIP,),
    "tar.gz": (b"\x1f\x8b",),
    "pickle": PICKLE,
}
PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")


def check_head(head: bytes, kind: Kind, name: str) -> None:
    """Check the first `HEAD_BYTES` bytes (all, of a shorter file).

    Raises:
        DataError: empty, a web page, or another kind of file.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(PAGES):
        raise DataError(f"{name}: a web page, not a {kind} file (it begins with {_show(text)}).")
    if not text:
        raise DataError(f"{name}: must be a {kind} file, but is empty.")
    starts = STARTS.get(kind)
    fits = head.startswith(starts) if starts else kind != "json" or text[:1] in (b"{", b"[")
    if not fits:
        raise DataError(f"{name}: must be a {kind} file, but begins with {_show(head)}.")


def check_whole(path: Path, kind: Kind) -> None:
    """Check that the file at `path` is of its kind and has its end.

    Raises:
        DataError: of another kind, cut short, or damaged.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    check_head(head, kind, str(path))
    try:
        if head.startswith(ZIP):
            reason = _damage_of_zip(path)
        elif kind == "npy":
            reason = _damage_of_npy(path)
        elif kind == "tar.gz":
            reason = _damage_of_gzip(path)
        elif kind == "text":
            reason = _damage_of_text(path)
        elif kind == "json" and path.stat().st_size <= PARSED_BYTES:
            reason = _damage_of_json(path)
        else:
            reason = _damage_at_end(path, kind)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as err:
        reason = str(err) or type(err).__name__
    if reason:
        raise DataError(f"{path}: a {kind} file that is cut short or damaged ({reason}).")


def _damage_of_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return f"{broken} does not have its checksum" if broken else None


def _damage_of_npy(path: Path) -> str | None:
    with open(path, "rb") as file:
        is_first = np.lib.format.read_magic(file) == (1, 0)
        read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:  # a pickle follows, as in s3d_dict.npy
            return _damage_at_end(path, "pickle")
        should, size = file.tell() + math.prod(shape) * dtype.itemsize, path.stat().st_size
    return None if size == should else f"its header says {should} bytes, but there are {size}"


def _damage_of_gzip(path: Path) -> str | None:
    with gzip.open(path) as file:
        while file.read(1 << 20):
            continue
    return None


def _damage_of_text(path: Path) -> str | None:
    with open(path, encoding="utf-8") as file:
        while file.read(1 << 20):
            continue
    return None


def _damage_of_json(path: Path) -> str | None:
    with open(path, encoding="utf-8") as file:
        json.load(file)
    return None


def _damage_at_end(path: Path, kind: Kind) -> str | None:
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - HEAD_BYTES, 0))
        tail = file.read()
    if kind == "json" and not tail.rstrip().endswith((b"}", b"]")):  # too long to parse
        return f"it ends in {_show(tail[-16:])}"
    if kind == "pickle" and not tail.endswith(b"."):
        return "its last instruction is missing"
    return None


def _show(data: bytes) -> str:
    return repr(data[:32].decode("utf-8", errors="backslashreplace"))
