"""Downloads over what earlier runs have left: parts, whole files, and the list of what was recorded."""

from __future__ import annotations

import hashlib
import threading
from collections import namedtuple
from pathlib import Path

import pytest

from mmpt.errors import DataError
from mmpt.utils import download
from mmpt.utils.download import Outcome
from mmpt.utils.download_ledger import Ledger, record_of
from mmpt.utils.part_file import DownloadError, PartFile
from tests import misbehaving_server as server
from tests.downloads import DATA, OTHER, assert_whole, fetch
from tests.misbehaving_server import Site


# -- interrupted runs
def test_the_next_run_goes_on_where_the_last_stopped(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA, server.breaks_off(30_000), *[server.status(500)] * 3, server.honest)
    with pytest.raises(DownloadError, match=r"0\.0 MB are kept in .*s3d\.npy\.part: run the same command again"):
        fetch(url, target, ledger)
    assert target.with_name("s3d.npy.part").read_bytes() == DATA[:30_000]
    fetch(url, target, ledger)
    assert site.ranges("/s3d.npy")[-1] == "bytes=30000-"
    assert_whole(target, ledger)


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": "http://elsewhere/", "size": 64128, "etag": "x"}'])
def test_a_part_without_a_good_note_is_not_continued(note: str, site: Site, target: Path, ledger: Ledger) -> None:
    target.parent.mkdir()
    target.with_name("s3d.npy.part").write_bytes(b"rubbish")
    target.with_name("s3d.npy.part.json").write_text(note)
    fetch(site.serve("/s3d.npy", DATA), target, ledger)
    assert site.ranges("/s3d.npy") == [None]
    assert_whole(target, ledger)


def test_a_run_that_ended_just_before_the_name_needs_no_server(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFile, "publish", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(url, target, ledger)
    assert not target.exists()
    site.pages.clear()
    assert fetch(url, target, ledger) is Outcome.FETCHED
    assert_whole(target, ledger)
    assert len(site.requests) == 1


def test_a_full_disk_is_seen_before_and_survived(
    site: Site, target: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = site.serve("/s3d.npy", DATA)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda _: usage(10**9, 10**9, 50_000))
        with pytest.raises(DownloadError, match=r"needs 0\.1 MB more, but the disk has 0\.1 MB left"):
            fetch(url, target, ledger)
    assert list(target.parent.iterdir()) == []
    fetch(url, target, ledger)
    assert_whole(target, ledger)


def test_only_one_process_writes_a_file(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA)
    with PartFile(target), pytest.raises(DownloadError, match="another process"):
        fetch(url, target, ledger)
    fetch(url, target, ledger)
    assert_whole(target, ledger)


def test_a_folder_that_takes_no_file_is_an_error(site: Site, tmp_path: Path, ledger: Ledger) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(site.serve("/s3d.npy", DATA), tmp_path / "models" / "s3d.npy", ledger)


# -- what is there, and what was recorded
def test_an_intact_file_is_not_asked_for_again(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA)
    fetch(url, target, ledger)
    assert fetch(url, target, ledger) is Outcome.INTACT
    assert len(site.requests) == 1


def test_a_file_put_there_by_hand_is_checked_and_recorded(site: Site, target: Path, ledger: Ledger) -> None:
    target.parent.mkdir()
    target.write_bytes(DATA)
    assert fetch(f"{site.url}/none", target, ledger) is Outcome.FOUND
    assert ledger.get(target).url is None
    assert fetch(f"{site.url}/none", target, ledger) is Outcome.INTACT
    other = target.with_name("cut.npy")
    other.write_bytes(DATA[:-1])
    with pytest.raises(DataError, match="cut short"):
        fetch(f"{site.url}/none", other, ledger)


def test_a_changed_file_is_an_error_until_forced(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA)
    fetch(url, target, ledger)
    changed = bytearray(DATA)
    changed[-1] ^= 1
    target.write_bytes(changed)
    with pytest.raises(DownloadError, match=r"has changed since it was recorded .*--force"):
        fetch(url, target, ledger)
    fetch(url, target, ledger, force=True)
    assert_whole(target, ledger)


def test_another_file_at_the_address_is_an_error_until_forced(site: Site, target: Path, ledger: Ledger) -> None:
    fetch(site.serve("/s3d.npy", DATA), target, ledger)
    target.unlink()
    url = site.serve("/s3d.npy", OTHER, server.with_etag('"v2"'))
    with pytest.raises(DownloadError, match="at the first download"):
        fetch(url, target, ledger)
    assert list(target.parent.iterdir()) == []
    fetch(url, target, ledger, force=True)
    assert_whole(target, ledger, OTHER)


def test_a_hash_of_the_catalogue_binds_the_first_download_too(site: Site, target: Path, ledger: Ledger) -> None:
    right = hashlib.sha256(DATA).hexdigest()
    wrong = site.serve("/wrong.npy", OTHER)
    with pytest.raises(DownloadError, match=f"must be {right}, but is"):
        fetch(wrong, target, ledger, sha256=right)
    fetch(wrong, target, ledger, site.serve("/s3d.npy", DATA), sha256=right)
    assert_whole(target, ledger)


def test_force_leaves_the_old_file_until_the_new_one_is_whole(site: Site, target: Path, ledger: Ledger) -> None:
    fetch(site.serve("/s3d.npy", DATA), target, ledger)
    with pytest.raises(DownloadError):
        fetch(site.serve("/s3d.npy", OTHER, server.page), target, ledger, force=True)
    assert_whole(target, ledger)


def test_many_writers_of_the_ledger_lose_nothing(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(12)]
    for file in files:
        file.write_text(file.name)
    writers = [threading.Thread(target=lambda f=f: Ledger(tmp_path).add(f, record_of(f, None))) for f in files]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert all(Ledger(tmp_path).get(file) is not None for file in files)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "files": {}}', '{"format": 1, "files": {"a": {"b": 1}}}'])
def test_a_damaged_ledger_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "downloads.json").write_text(text)
    with pytest.raises(DataError, match=r"downloads\.json: not a list of downloads .* Remove it"):
        Ledger(tmp_path).get(tmp_path / "x")
