"""Downloads from a server on this machine that breaks off, lies and redirects: right bytes, or one clear error."""

from __future__ import annotations

import http.client
import random
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from mmpt.utils import http_range
from mmpt.utils.download import Outcome
from mmpt.utils.download_ledger import Ledger
from mmpt.utils.http_range import RefusedError, mirrored
from mmpt.utils.part_file import DownloadError
from tests import misbehaving_server as server
from tests.downloads import DATA, OTHER, QUICK, archive, assert_whole, fetch
from tests.misbehaving_server import Site

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
