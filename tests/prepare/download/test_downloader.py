"""Tests of downloads from a local server that misbehaves: correct bytes, or one clear error."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from huggingface_hub import constants

from mmpt.errors import DataError
from mmpt.prepare.download import downloader as module
from mmpt.prepare.download.catalogue import File
from mmpt.prepare.download.contents import unpack_members
from mmpt.prepare.download.downloader import Downloader, DownloadError
from tests.support import misbehaving_server as server
from tests.support.misbehaving_server import Answer, Site
from tests.support.recipe_data import tarred, zipped


def npy(seed: int) -> bytes:
    file = io.BytesIO()
    np.save(
        file, np.random.default_rng(seed).integers(0, 256, (4000, 16), dtype=np.uint8)
    )
    return file.getvalue()


DATA, OTHER = npy(0), npy(1)  # 64,128 bytes each


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with server.running_site() as running:
        yield running


@pytest.fixture
def downloader(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path, tries=2)


@pytest.fixture
def forced(tmp_path: Path) -> Downloader:
    return Downloader(tmp_path, force=True)


def serve(site: Site, *answers: Answer, data: bytes = DATA) -> File:
    return File(target="models/s3d.npy", urls=(site.serve("/s3d.npy", data, *answers),))


def assert_whole(downloader: Downloader, data: bytes = DATA) -> None:
    """Checks that the file has the right bytes and a record, and no other files next to it."""
    target = downloader.root / "models/s3d.npy"
    assert target.read_bytes() == data
    records = json.loads((downloader.root / "downloads.json").read_text())
    record = records["files"]["models/s3d.npy"]
    assert (record["size"], record["sha256"]) == (
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert list(target.parent.iterdir()) == [target]


# -- servers that send the whole file eventually
RECOVERABLE = {
    "breaks off": [server.breaks_off(20_000), server.breaks_off(20_000), server.honest],
    "resets": [server.resets(20_000), server.honest],
    "weak ETag": [server.with_etag('W/"v1"')],
    "no ranges": [server.breaks_off(20_000), server.whole],
    "changes meanwhile": [server.breaks_off(20_000), server.with_etag('"v2"')],
    "no marks": [server.unmarked],
}


@pytest.mark.parametrize("case", RECOVERABLE)
def test_the_whole_file_is_downloaded_eventually(
    case: str, site: Site, downloader: Downloader
) -> None:
    downloader.get_file(serve(site, *RECOVERABLE[case]))
    assert_whole(downloader)


@pytest.mark.parametrize(
    ("answer", "data", "words"),
    [
        (server.status(404), DATA, "404"),
        (server.page, DATA, r"must be a \.npy file, but is a web page .*DOCTYPE"),
        (
            server.honest,
            b"PK\x03\x04" + DATA,
            r"must be a \.npy file, but begins with .PK",
        ),
        (server.honest, b"", r"must be a \.npy file, but is empty"),
    ],
)
def test_the_error_names_the_address_and_the_reason(
    answer: Answer, data: bytes, words: str, site: Site, downloader: Downloader
) -> None:
    words = rf"s3d\.npy: cannot be downloaded\. {site.url}.*{words}"
    with pytest.raises(DownloadError, match=words):
        downloader.get_file(serve(site, answer, data=data))
    assert list((downloader.root / "models").iterdir()) == []


def test_the_next_run_continues_the_download(
    site: Site, downloader: Downloader
) -> None:
    file = serve(site, server.breaks_off(20_000), server.status(404), server.honest)
    with pytest.raises(
        DownloadError, match=r"404 .*\. Kept: 0\.0 MB in .*\.part\. Run the same"
    ):
        downloader.get_file(file)
    downloader.get_file(file)
    assert site.ranges("/s3d.npy") == [None, "bytes=20000-", "bytes=20000-"]
    assert_whole(downloader)


def test_another_version_is_downloaded_from_the_beginning(
    site: Site, downloader: Downloader
) -> None:
    with pytest.raises(DownloadError):
        downloader.get_file(serve(site, server.breaks_off(20_000), server.status(404)))
    downloader.get_file(serve(site, server.with_etag('"v2"'), data=OTHER))
    assert site.ranges("/s3d.npy")[-1] is None
    assert_whole(downloader, OTHER)


def test_a_download_that_was_killed_before_the_rename_is_completed(
    site: Site, downloader: Downloader
) -> None:
    file = serve(site)
    killed = mock.patch.object(module, "check_kind", side_effect=KeyboardInterrupt)
    with killed, pytest.raises(KeyboardInterrupt):
        downloader.get_file(file)
    downloader.get_file(file)
    assert len(site.requests) == 1
    assert_whole(downloader)


def test_the_second_address_is_used_if_the_first_fails(
    site: Site, downloader: Downloader
) -> None:
    wrong = site.serve("/wrong.npy", b"", server.page)
    file = serve(site)
    downloader.get_file(File(target=file.target, urls=(wrong, *file.urls)))
    assert_whole(downloader)


# -- existing files, and records
def test_an_existing_file_is_compared_with_its_record(
    site: Site, downloader: Downloader, forced: Downloader
) -> None:
    file = serve(site)
    downloader.get_file(file)
    downloader.get_file(file)
    assert len(site.requests) == 1
    (downloader.root / file.target).write_bytes(OTHER)
    with pytest.raises(
        DownloadError, match=r"has changed since it was recorded .*--force"
    ):
        downloader.get_file(file)
    forced.get_file(file)
    assert_whole(downloader)


def test_a_file_that_the_user_adds_is_checked_and_recorded(
    downloader: Downloader,
) -> None:
    target = downloader.root / "norton.json"
    target.write_bytes(b'\xef\xbb\xbf {"a": ')
    with pytest.raises(
        DataError, match=r"norton\.json: must be a \.json file, but is cut short"
    ):
        downloader.get_file(File(target=target.name))
    target.write_bytes(b'\xef\xbb\xbf {"a": 1}\n')
    downloader.get_file(File(target=target.name))
    target.write_bytes(b'{"a": 2}')
    with pytest.raises(DownloadError, match="has changed"):
        downloader.get_file(File(target=target.name))


def test_force_keeps_the_old_file_until_the_new_one_is_accepted(
    site: Site, downloader: Downloader, forced: Downloader
) -> None:
    downloader.get_file(serve(site))
    with pytest.raises(DownloadError, match="web page"):
        forced.get_file(serve(site, server.page))
    assert_whole(downloader)
    (downloader.root / "models/s3d.npy").unlink()
    changed = serve(site, server.with_etag('"v2"'), data=OTHER)
    with pytest.raises(DownloadError, match="at the first download"):
        downloader.get_file(changed)
    forced.get_file(changed)
    assert_whole(downloader, OTHER)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "files": {}}'])
def test_damaged_records_are_an_error(
    text: str, site: Site, downloader: Downloader
) -> None:
    (downloader.root / "downloads.json").write_text(text)
    with pytest.raises(DownloadError, match=r"downloads\.json: .* Remove it"):
        downloader.get_file(serve(site))


# -- archives
@pytest.mark.parametrize(
    ("name", "pack"), [("data.zip", zipped), ("data.tar.gz", tarred)]
)
def test_members_are_unpacked_to_their_paths(
    name: str, pack: Callable, tmp_path: Path
) -> None:
    archive = tmp_path / name
    members = {"msrvtt/a.csv": b"x", "msrvtt/aa.csv": b"y", "../../evil.csv": b"z"}
    archive.write_bytes(pack(members))
    unpack_members(archive, {"a.csv": tmp_path / "out/b.csv"})
    assert (tmp_path / "out/b.csv").read_bytes() == b"x"
    with pytest.raises(
        DataError, match=r"must hold one c\.csv, but holds 0 \(its members: msrvtt"
    ):
        unpack_members(archive, {"c.csv": tmp_path / "out/c.csv"})
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack_members(archive, {"a.csv": tmp_path / "out/d.csv"})
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b.csv", name, "out"]
