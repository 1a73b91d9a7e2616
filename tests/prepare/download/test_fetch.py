"""Downloads from a server on this machine that breaks off and lies: right bytes, or one clear
error.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from mmpt.errors import DataError
from mmpt.prepare.download.catalogue import File
from mmpt.prepare.download.fetch import DownloadError, Outcome, fetch_file
from mmpt.prepare.download.records import Records
from tests import misbehaving_server as server
from tests.misbehaving_server import Answer, Site


def npy(seed: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(seed).integers(0, 256, (4000, 16), dtype=np.uint8))
    return file.getvalue()


DATA, OTHER = npy(0), npy(1)  # 64,128 bytes each
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with server.running_site() as running:
        yield running


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def serve(site: Site, *answers: Answer, data: bytes = DATA) -> File:
    return File("models/s3d.npy", "npy", (site.serve("/s3d.npy", data, *answers),))


def assert_whole(records: Records, data: bytes = DATA) -> None:
    """The bytes are right, recorded, and nothing else is left next to them."""
    target = records.root / "models/s3d.npy"
    assert target.read_bytes() == data
    record = json.loads((records.root / "downloads.json").read_text())["files"]["models/s3d.npy"]
    assert (record["size"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert list(target.parent.iterdir()) == [target]


# -- servers from which the file comes in the end
RECOVERABLE = {
    "breaks off": [server.breaks_off(20_000), server.breaks_off(20_000), server.honest],
    "resets": [server.resets(20_000), server.honest],
    "weak ETag": [server.with_etag('W/"v1"')],
    "no ranges": [server.breaks_off(20_000), server.whole],
    "changes meanwhile": [server.breaks_off(20_000), server.with_etag('"v2"')],
    "no marks": [server.unmarked],
    "503 once": [server.busy_once(503)],
    "429 once": [server.busy_once(429)],
}


@pytest.mark.parametrize("case", RECOVERABLE)
def test_the_file_comes_in_the_end(case: str, site: Site, records: Records) -> None:
    assert fetch_file(serve(site, *RECOVERABLE[case]), records) is Outcome.FETCHED
    assert_whole(records)


@pytest.mark.parametrize(
    ("answer", "data", "words"),
    [
        (server.status(404), DATA, "the server answers 404"),
        (server.status(503), DATA, "the server answers 503"),
        (server.page, DATA, "must be a npy file, but is a web page .*DOCTYPE"),
        (server.honest, b"PK\x03\x04" + DATA, "must be a npy file, but begins with .PK"),
        (server.honest, b"", "must be a npy file, but is empty"),
    ],
)
def test_an_error_names_address_and_reason(
    answer: Answer, data: bytes, words: str, site: Site, records: Records
) -> None:
    with pytest.raises(
        DownloadError, match=rf"(?s)s3d\.npy: cannot be downloaded\. {site.url}.*{words}"
    ):
        fetch_file(serve(site, answer, data=data), records, tries=2)
    assert list((records.root / "models").iterdir()) == []


def test_the_next_run_continues(site: Site, records: Records) -> None:
    file = serve(site, server.breaks_off(20_000), server.status(404), server.honest)
    with pytest.raises(DownloadError, match=r"404 .*\. Kept: 0\.0 MB in .*\.part\. Run the same"):
        fetch_file(file, records)
    fetch_file(file, records)
    assert site.ranges("/s3d.npy") == [None, "bytes=20000-", "bytes=20000-"]
    assert_whole(records)


def test_another_version_begins_at_its_first_byte(site: Site, records: Records) -> None:
    with pytest.raises(DownloadError):
        fetch_file(serve(site, server.breaks_off(20_000), server.status(404)), records)
    fetch_file(serve(site, server.with_etag('"v2"'), data=OTHER), records)
    assert site.ranges("/s3d.npy")[-1] is None
    assert_whole(records, OTHER)


def test_a_run_that_was_killed_before_the_rename_has_all_bytes(
    site: Site, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    file = serve(site)
    with monkeypatch.context() as patch:
        patch.setattr("mmpt.prepare.download.fetch.record_of", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch_file(file, records)
    fetch_file(file, records)
    assert len(site.requests) == 1
    assert_whole(records)


def test_the_second_address_helps_when_the_first_has_another_file(
    site: Site, records: Records
) -> None:
    wrong = site.serve("/wrong.npy", OTHER)
    file = replace(serve(site), sha256=HASH)
    with pytest.raises(DownloadError, match=f"the SHA-256 must be {HASH}, but is"):
        fetch_file(replace(file, urls=(wrong,)), records)
    fetch_file(replace(file, urls=(wrong, *file.urls)), records)
    assert_whole(records)


# -- files that are there, and records
def test_a_file_that_is_there_is_only_compared(site: Site, records: Records) -> None:
    file = serve(site)
    fetch_file(file, records)
    assert fetch_file(file, records) is Outcome.INTACT
    assert len(site.requests) == 1
    (records.root / file.target).write_bytes(OTHER)
    with pytest.raises(DownloadError, match=r"has changed since it was recorded .*--force"):
        fetch_file(file, records)
    fetch_file(file, records, force=True)
    assert_whole(records)


def test_a_file_put_there_by_hand_is_checked_and_recorded(records: Records) -> None:
    file = File("norton.json", "json")
    (records.root / file.target).write_bytes(b'\xef\xbb\xbf {"a": ')
    with pytest.raises(DataError, match="cut short: it ends in"):
        fetch_file(file, records)
    (records.root / file.target).write_bytes(b'\xef\xbb\xbf {"a": 1}\n')
    assert fetch_file(file, records) is Outcome.FOUND
    assert fetch_file(file, records) is Outcome.INTACT


def test_force_keeps_the_old_file_until_the_new_one_is_accepted(
    site: Site, records: Records
) -> None:
    fetch_file(serve(site), records)
    with pytest.raises(DownloadError, match="web page"):
        fetch_file(serve(site, server.page), records, force=True)
    assert_whole(records)
    os.unlink(records.root / "models/s3d.npy")
    changed = serve(site, server.with_etag('"v2"'), data=OTHER)
    with pytest.raises(DownloadError, match="at the first download"):
        fetch_file(changed, records)
    fetch_file(changed, records, force=True)
    assert_whole(records, OTHER)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "files": {}}'])
def test_damaged_records_are_an_error(text: str, records: Records) -> None:
    records.path.write_text(text)
    with pytest.raises(DataError, match=r"downloads\.json: not a list of downloads .* Remove it"):
        records.get(records.root / "x")
