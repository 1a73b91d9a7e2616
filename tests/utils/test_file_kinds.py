"""Whole and damaged files of every kind, and single members of archives."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.utils import file_kinds
from mmpt.utils.file_kinds import Kind, check_head, check_whole
from mmpt.utils.unpack import unpack_member
from tests.downloads import DATA, archive


def object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(["a", "bc"], dtype=object), allow_pickle=True)
    return file.getvalue()


WHOLE: dict[str, tuple[Kind, bytes]] = {
    "npy": ("npy", DATA),
    "npy of Python strings": ("npy", object_array()),
    "torch, zip": ("torch", archive(data=bytes(3000))),
    "zip": ("zip", archive(a=bytes(3000))),
    "tar.gz": ("tar.gz", gzip.compress(random.Random(0).randbytes(3000))),
    "json": ("json", json.dumps({str(i): [i] for i in range(400)}).encode() + b"\n"),
    "pickle": ("pickle", b"\x80\x04]" + b"K\x01a" * 400 + b"."),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_passes_and_every_shorter_one_does_not(name: str, tmp_path: Path) -> None:
    kind, data = WHOLE[name]
    path = tmp_path / "file"
    path.write_bytes(data)
    check_whole(path, kind)
    for length in (0, 1, len(data) // 2, len(data) - 2):
        path.write_bytes(data[:length])
        with pytest.raises(DataError):
            check_whole(path, kind)


def test_of_a_long_json_file_both_ends_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_kinds, "PARSED_BYTES", 100)
    path = tmp_path / "file.json"
    path.write_text(json.dumps([f"word {number}" for number in range(100)]) + "\n\n")
    check_whole(path, "json")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="it ends in"):
        check_whole(path, "json")


def test_damage_in_the_middle_of_an_archive_is_found(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    data = bytearray(archive(data=random.Random(0).randbytes(3000)))
    data[1500] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="data"):
        check_whole(path, "torch")


def test_text_must_be_utf8_and_no_page(tmp_path: Path) -> None:
    path = tmp_path / "list.lst"
    path.write_text("abc\ndéf\n", encoding="utf-8")
    check_whole(path, "text")
    path.write_bytes(b"abc\xff\n")
    with pytest.raises(DataError, match="utf-8"):
        check_whole(path, "text")
    for start in (b"\xef\xbb\xbf <HTML>", b"\n<!doctype html>", b"<?xml version='1.0'?>"):
        with pytest.raises(DataError, match="web page"):
            check_head(start, "text", "x")


# -- archives
def test_single_members_are_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    path.write_bytes(archive(msrvtt__a_csv=b"x", msrvtt__aa_csv=b"y", evil=b"z"))
    unpack_member(path, "a_csv", tmp_path / "out" / "a.csv")
    assert (tmp_path / "out" / "a.csv").read_bytes() == b"x"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.csv"]
    with pytest.raises(DataError, match="must hold one b_csv, but holds 0"):
        unpack_member(path, "b_csv", tmp_path / "out" / "b.csv")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_member(path, "a_csv", tmp_path / "out" / "c.csv")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.csv"]
