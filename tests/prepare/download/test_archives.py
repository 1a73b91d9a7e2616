"""Members of archives: each to its place, nothing outside, nothing half-written."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.prepare.download.archives import unpack_members


def write_archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in members.items():
                packed.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz") as packed_tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            packed_tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_members_go_to_their_places(name: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / name, {"msrvtt/a.csv": b"x", "msrvtt/aa.csv": b"y"})
    unpack_members(archive, {tmp_path / "out/b.csv": "a.csv"})
    assert (tmp_path / "out/b.csv").read_bytes() == b"x"
    with pytest.raises(DataError, match=r"must hold one c\.csv, but holds 0 \(its members: msrvtt"):
        unpack_members(archive, {tmp_path / "out/c.csv": "c.csv"})
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_members(archive, {tmp_path / "out/d.csv": "a.csv"})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.csv", name, "out"]


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
@pytest.mark.parametrize("member", ["../evil.csv", "a/../../evil.csv"])
def test_an_archive_that_writes_outside_is_refused(name: str, member: str, tmp_path: Path) -> None:
    archive = write_archive(tmp_path / name, {"a.csv": b"x", member: b"evil"})
    with pytest.raises(DataError, match="must not write outside of its folder"):
        unpack_members(archive, {tmp_path / "out/a.csv": "a.csv"})
    assert list(tmp_path.iterdir()) == [archive]
