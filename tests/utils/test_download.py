"""Downloads from a server on this machine that breaks off, lies and redirects: right bytes, or one clear error."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import random
import threading
import urllib.request
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmpt.errors import DataError
from mmpt.utils import download, file_kinds, http_range
from mmpt.utils.download import Outcome, Patience, Remote, fetch_file
from mmpt.utils.download_ledger import Ledger, record_of
from mmpt.utils.file_kinds import Kind, check_head, check_whole
from mmpt.utils.http_range import RefusedError, mirrored
from mmpt.utils.part_file import DownloadError, PartFile
from mmpt.utils.unpack import unpack_member
from tests import misbehaving_server as server
from tests.misbehaving_server import Site

QUICK = Patience(tries=3, first_wait_s=0.001, longest_wait_s=0.002)


def npy(num_rows: int = 4000, seed: int = 0) -> bytes:
    file = io.BytesIO()
    np.save(file, np.random.default_rng(seed).integers(0, 256, (num_rows, 16), dtype=np.uint8))
    return file.getvalue()


def archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name, data in members.items():
            packed.writestr(name.replace("__", "/"), data)
    return file.getvalue()


DATA = npy()  # 64,128 bytes: 128 of header, 64,000 of content
OTHER = npy(seed=1)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    with server.running_site() as site:
        yield site


@pytest.fixture
def site(running: Site) -> Site:
    running.pages.clear()
    running.requests.clear()
    return running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "s3d.npy"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def fetch(url: str, target: Path, ledger: Ledger, *more: str, kind: Kind = "npy", **options: object) -> Outcome:
    remote = Remote((url, *more), kind, options.pop("sha256", None))
    return fetch_file(remote, target, ledger, patience=options.pop("patience", QUICK), **options)


def assert_whole(target: Path, ledger: Ledger, data: bytes = DATA) -> None:
    """The bytes are right, recorded, and nothing else is left beside them."""
    assert target.read_bytes() == data
    record = ledger.get(target)
    assert record is not None
    assert (record.size, record.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert [path.name for path in target.parent.iterdir()] == [target.name]


# -- servers from which the file comes in the end; the ranges are what was asked for, one request after the other
RECOVERABLE = {
    "honest": ([server.honest], [None]),
    "breaks off twice": (
        [server.breaks_off(20_000), server.breaks_off(20_000), server.honest],
        [None, "bytes=20000-", "bytes=40000-"],
    ),
    "breaks off one byte before the end": (
        [server.breaks_off(len(DATA) - 1), server.honest],
        [None, f"bytes={len(DATA) - 1}-"],
    ),
    "dated, breaks off": ([server.dated(30_000), server.dated()], [None, "bytes=30000-"]),
    "breaks off without any mark": ([server.unmarked(30_000), server.unmarked()], [None, None]),
    "breaks off, with a weak ETag": (
        [lambda h, d: server.part_of(h, d, slice(30_000), 'W/"v1"'), server.with_etag('W/"v1"')],
        [None, None],
    ),
    "announces too much once": ([server.announces(len(DATA) + 9), server.no_rest], [None, f"bytes={len(DATA)}-", None]),
    "no ranges, 200 instead of 206": ([server.breaks_off(30_000), server.whole], [None, "bytes=30000-"]),
    "416": ([server.breaks_off(30_000), server.no_rest], [None, "bytes=30000-", None]),
    "another rest than asked for": ([server.breaks_off(30_000), server.wrong_rest], [None, "bytes=30000-", None]),
    "a rest that is too long": (
        [server.breaks_off(30_000), server.long_rest, server.honest],
        [None, "bytes=30000-", None],
    ),
    "changed, If-Range heeded": ([server.breaks_off(30_000), server.with_etag('"v2"')], [None, "bytes=30000-"]),
    "changed, If-Range ignored": ([server.breaks_off(30_000), server.stale_rest('"v2"')], [None, "bytes=30000-", None]),
    "no size": ([server.endless], [None]),
    "chunked": ([server.chunked(broken=False)], [None]),
    "chunked, breaks off": ([server.chunked(broken=True), server.honest], [None, f"bytes={len(DATA) // 2}-"]),
    "503, then well": ([server.status(503, Retry_After=0), server.honest], [None, None]),
    "429, then well": ([server.status(429), server.honest], [None, None]),
    "hangs up, then well": ([server.hangs_up, server.honest], [None, None]),
    "Content-Length is no number": ([lambda h, d: server.part_of(h, d, Content_Length="many")], [None]),
}


@pytest.mark.parametrize("case", RECOVERABLE)
def test_the_file_comes_in_the_end(case: str, site: Site, target: Path, ledger: Ledger) -> None:
    answers, ranges = RECOVERABLE[case]
    url = site.serve("/s3d.npy", DATA, *answers)
    assert fetch(url, target, ledger) is Outcome.FETCHED
    assert_whole(target, ledger)
    assert site.ranges("/s3d.npy") == ranges


def test_a_file_that_changes_in_between_is_never_spliced(site: Site, target: Path, ledger: Ledger) -> None:
    """The old version breaks off, then there is a new one of the same size: only its own bytes may come out."""
    swap = [
        lambda handler, _: server.part_of(handler, DATA, slice(30_000)),
        lambda handler, _: server.part_of(handler, OTHER, etag='"v2"'),
    ]
    fetch(site.serve("/s3d.npy", b"", *swap), target, ledger)
    assert_whole(target, ledger, OTHER)


def test_any_order_of_mischief_gives_the_right_bytes_or_an_error(site: Site, tmp_path: Path) -> None:
    draw = random.Random(7)
    mischief = [answer for answers, _ in RECOVERABLE.values() for answer in answers]
    mischief += [answer for name, (answers, _, _) in HOPELESS.items() if name != "falls silent" for answer in answers]
    num_whole = 0
    for count in range(40):
        target, ledger = tmp_path / f"{count}.npy", Ledger(tmp_path / str(count))
        url = site.serve(f"/{count}", DATA, *draw.choices(mischief, k=5), server.honest)
        for _ in range(8):
            try:
                fetch(url, target, ledger)
                break
            except DownloadError:
                assert not target.exists()
        num_whole += target.exists()
        assert not target.exists() or target.read_bytes() == DATA
    assert num_whole == 40


def test_tries_are_counted_only_without_progress(site: Site, target: Path, ledger: Ledger) -> None:
    url = site.serve("/s3d.npy", DATA, server.breaks_off(5_000))
    fetch(url, target, ledger)
    assert_whole(target, ledger)
    assert len(site.requests) == 13  # 64,128 bytes in pieces of 5,000, with 3 tries in a row allowed


# -- servers from which it never comes: answers, words of the message, number of requests
HOPELESS = {
    "404": ([server.status(404)], "404", 1),
    "403": ([server.status(403)], "403", 1),
    "500 for ever": ([server.status(500)], "500.* 3 times in a row", 3),
    "hangs up for ever": ([server.hangs_up], "3 times in a row", 3),
    "falls silent": ([server.stalls(0)], "timed out.* 3 times in a row", 3),
    "announces too much for ever": (
        [lambda h, d: h.reply(200, d, Content_Length=len(d) + 9)],
        "broke off after 64128 of 64137 bytes, 3 times in a row",
        3,
    ),
    "announces too little": ([server.announces(50_000)], "cut short or damaged .*64128 bytes, but there are 50000", 1),
    "sends a part as if it were all": ([server.cut(50_000)], "cut short or damaged", 1),
    "sends nothing": ([server.cut(0)], "empty", 1),
    "a web page": ([server.page], "a web page, not a npy file .*DOCTYPE", 1),
    "another kind of file": ([lambda h, _: server.part_of(h, archive(a=bytes(900)))], "must be a npy file", 1),
    "packed on the way": ([server.packed], "packs the file", 1),
    "204": ([lambda h, _: h.reply(204)], "answers 204", 1),
    "redirected to another protocol": ([server.redirects("ftp://127.0.0.1/x")], "redirected from http to ftp", 1),
    "redirected to a file of this machine": ([server.redirects("file:///etc/hosts")], "file:///etc/hosts", 1),
}


@pytest.mark.parametrize("case", HOPELESS)
def test_an_error_says_what_the_server_did(case: str, site: Site, target: Path, ledger: Ledger) -> None:
    answers, words, num_requests = HOPELESS[case]
    url = site.serve("/s3d.npy", DATA, *answers)
    patience = replace(QUICK, timeout_s=0.15) if case == "falls silent" else QUICK
    with pytest.raises(DownloadError, match=f"(?s){url}.*{words}"):
        fetch(url, target, ledger, patience=patience)
    assert not target.exists()
    assert ledger.get(target) is None
    assert len(site.requests) == num_requests


def test_nobody_there_is_an_error(target: Path, ledger: Ledger) -> None:
    with server.running_site() as gone:
        url = gone.url
    with pytest.raises(DownloadError, match=r"refused.* 3 times in a row"):
        fetch(f"{url}/x", target, ledger)
    assert list(target.parent.iterdir()) == []


# -- redirects
def test_redirects_are_followed_and_the_rest_too(site: Site, target: Path, ledger: Ledger) -> None:
    site.serve("/real.npy", DATA, server.breaks_off(30_000), server.honest)
    site.serve("/b", b"", server.redirects(f"{site.url}/real.npy"))
    url = site.serve("/a", b"", server.redirects("/b"))
    fetch(url, target, ledger)
    assert_whole(target, ledger)
    assert site.ranges("/real.npy") == [None, "bytes=30000-"]
    assert ledger.get(target).url == url


def test_circles_and_long_chains_end(site: Site, target: Path, ledger: Ledger) -> None:
    site.serve("/ping", b"", server.redirects("/pong"))
    site.serve("/pong", b"", server.redirects("/ping"))
    for step in range(30):
        site.serve(f"/{step}", b"", server.redirects(f"/{step + 1}"))
    for start in ("/ping", "/0"):
        site.requests.clear()
        with pytest.raises(DownloadError, match="redirect"):
            fetch(site.url + start, target, ledger)
        assert len(site.requests) <= http_range.MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [("https", "http", False), ("https", "https", True), ("http", "https", True), ("https", "file", False)],
)
def test_a_redirect_never_gives_encryption_up(old: str, new: str, allowed: bool) -> None:
    handler, request = http_range._Redirects(), urllib.request.Request(f"{old}://a/x")
    arguments = (request, None, 302, "Found", http.client.HTTPMessage(), f"{new}://b/y")
    if allowed:
        assert handler.redirect_request(*arguments).full_url == f"{new}://b/y"
    else:
        with pytest.raises(RefusedError, match="less safe"):
            handler.redirect_request(*arguments)


# -- several addresses, mirrors
def test_the_second_address_is_taken_when_the_first_has_gone(site: Site, target: Path, ledger: Ledger) -> None:
    first = site.serve("/old.npy", b"", server.page)
    second = site.serve("/new.npy", DATA)
    fetch(first, target, ledger, second)
    assert_whole(target, ledger)
    assert ledger.get(target).url == second


def test_bytes_of_one_address_are_not_continued_at_another(site: Site, target: Path, ledger: Ledger) -> None:
    site.serve("/old.npy", DATA, server.breaks_off(30_000), server.status(404))
    second = site.serve("/new.npy", OTHER)
    fetch(f"{site.url}/old.npy", target, ledger, second)
    assert_whole(target, ledger, OTHER)


@pytest.mark.parametrize(
    ("mirror", "result"),
    [
        (None, "https://a.org/b/c.pt?x=1"),
        ("http://m:8000", "http://m:8000/b/c.pt?x=1"),
        ("https://m/p/", "https://m/p/b/c.pt?x=1"),
    ],
)
def test_a_mirror_replaces_scheme_and_host(mirror: str | None, result: str) -> None:
    assert mirrored("https://a.org/b/c.pt?x=1", mirror) == result


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


# -- kinds of files
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
