"""Files from the web: resumed where the last transfer broke off, checked, recorded, and given their name last.

Standard library only. What a server says is checked three times: the bytes against the size it announced, the file
against its kind (`file_kinds`), and its SHA-256 against the catalogue's or the one recorded at the first download.
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmpt.errors import DataError
from mmpt.utils.download_ledger import Ledger, Record, record_of
from mmpt.utils.file_kinds import HEAD_BYTES, Kind, check_head, check_whole
from mmpt.utils.http_range import Body, CannotResumeError, RefusedError, TryAgainError, open_from
from mmpt.utils.log import format_seconds, get_logger
from mmpt.utils.part_file import DownloadError, PartFile

logger = get_logger(__name__)

PROGRESS_INTERVAL_S = 5.0


class Outcome(StrEnum):
    """What `fetch_file` did."""

    FETCHED = "downloaded"
    INTACT = "already there and intact"
    FOUND = "already there, recorded now"


@dataclass(frozen=True)
class Remote:
    """A file on the web: its addresses in order of preference, its kind, and its SHA-256 if it is known."""

    urls: tuple[str, ...]
    kind: Kind
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to try. A try that brings the file further is not counted."""

    tries: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    timeout_s: float = 30.0


def fetch_file(
    remote: Remote, target: Path, ledger: Ledger, *, force: bool = False, patience: Patience | None = None
) -> Outcome:
    """Bring `remote` to `target`, or check what is there.

    Args:
        force: fetch it although it is there or was recorded with another content. An interrupted transfer is resumed.
    Raises:
        DownloadError: no address gives it, the disk is full, or it is not the file that was recorded.
    """
    if target.exists() and not force:
        return check_there(remote, target, ledger)
    with PartFile(target) as part:
        problems = []
        for url in remote.urls:
            try:
                _transfer(url, part, remote.kind, patience or Patience())
                _accept(url, part, remote, ledger, force)
                return Outcome.FETCHED
            except RefusedError as err:
                problems.append(f"{url}: {err}")
                logger.warning("%s", problems[-1])
        kept = f" {part.size / 1e6:.1f} MB are kept in {part.path}: run the same command again." if part.size else ""
        raise DownloadError(f"{target}: cannot be had. " + "; ".join(problems) + "." + kept)


def check_there(remote: Remote, target: Path, ledger: Ledger) -> Outcome:
    """Compare the file that is there with its record; without one, check its kind and record it.

    Raises:
        DownloadError: another content than recorded.
        DataError: not whole.
    """
    known, now = ledger.get(target), record_of(target, None)
    if known is not None:
        _compare(target, known, now)
    if remote.sha256 not in (None, now.sha256):
        raise DownloadError(
            f"{target}: its SHA-256 must be {remote.sha256}, but is {now.sha256}. Remove it, or replace it with "
            "`--force`."
        )
    if known is not None:
        return Outcome.INTACT
    check_whole(target, remote.kind)
    ledger.add(target, now)
    return Outcome.FOUND


def _compare(target: Path, known: Record, now: Record) -> None:
    if (known.size, known.sha256) != (now.size, now.sha256):
        raise DownloadError(
            f"{target}: has changed since it was recorded on {known.date}: it had {known.size} bytes and SHA-256 "
            f"{known.sha256}, and now has {now.size} bytes and {now.sha256}. Replace it with `--force`, or remove "
            "its entry from downloads.json if the change is yours."
        )


def _transfer(url: str, part: PartFile, kind: Kind, patience: Patience) -> None:
    """Try until all bytes are here; RefusedError when `tries` in a row brought nothing new."""
    furthest, failures = part.size, 0
    while True:
        try:
            return _attempt(url, part, kind, patience.timeout_s)
        except TryAgainError as err:
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= patience.tries:
                raise RefusedError(f"{err}, {failures} times in a row") from err
            wait_s = max(min(patience.first_wait_s * 2 ** (failures - 1), patience.longest_wait_s), err.wait_s)
            logger.warning("%s: %s; trying again in %.1f s", part.target.name, err, wait_s)
            time.sleep(wait_s)


def _attempt(url: str, part: PartFile, kind: Kind, timeout_s: float) -> None:
    offset, version = part.resume_point(url)
    if version is not None and offset == version.size:
        return  # all here: the last run ended just before the checks
    try:
        body = open_from(url, offset, version, timeout_s)
    except CannotResumeError as err:
        logger.warning("%s: beginning anew, because %s", part.target.name, err)
        part.clear()
        try:
            body = open_from(url, 0, None, timeout_s)
        except CannotResumeError as again:
            raise RefusedError(str(again)) from again
    with closing(body.response):
        if body.start == 0:
            part.restart(url, body.version)
        else:
            logger.info("%s: going on at %.1f MB", part.target.name, body.start / 1e6)
        _receive(body, part, kind)


def _receive(body: Body, part: PartFile, kind: Kind) -> None:
    """Write the bytes of `body`; TryAgainError when they are fewer or more than the server announced."""
    size = body.version.size
    if size is not None:
        _check_room(part, size)
    progress = _Progress(part.target.name, part.size, size)
    looked = False
    for chunk in body.chunks():
        part.append(chunk)
        if not looked and part.size >= HEAD_BYTES:
            _look(part, kind)
            looked = True
        if size is not None and part.size > size:
            part.clear()
            raise TryAgainError(f"the server sends more than the {size} bytes that it announced")
        progress.show(part.size)
    if size is not None and part.size < size:
        raise TryAgainError(f"the server broke off after {part.size} of {size} bytes")
    progress.end(part.size)


def _look(part: PartFile, kind: Kind) -> None:
    try:
        check_head(part.head(HEAD_BYTES), kind, "what the server sends")
    except DataError as err:
        part.clear()
        raise RefusedError(str(err).rstrip(".")) from err


def _check_room(part: PartFile, size: int) -> None:
    free, need = shutil.disk_usage(part.path.parent).free, size - part.size
    if need > free:
        raise DownloadError(
            f"{part.target}: needs {need / 1e6:.1f} MB more, but the disk has {free / 1e6:.1f} MB left. Make room, or "
            "give another `--root`."
        )


def _accept(url: str, part: PartFile, remote: Remote, ledger: Ledger, force: bool) -> None:
    """Check the whole file, record it, and give it its name; a wrong one is thrown away, so that a rerun can help."""
    try:
        check_whole(part.path, remote.kind)
    except DataError as err:
        part.clear()
        raise RefusedError(str(err).rstrip(".")) from err
    now, known = record_of(part.path, url), ledger.get(part.target)
    if remote.sha256 not in (None, now.sha256):
        part.clear()
        raise RefusedError(f"the SHA-256 must be {remote.sha256}, but is {now.sha256}")
    if known is not None and known.sha256 != now.sha256:
        if not force:
            part.clear()
            raise RefusedError(
                f"the SHA-256 was {known.sha256} at the first download ({known.date}), but is {now.sha256} now; take "
                "the new file with `--force` if you trust it"
            )
        logger.warning("%s: other content than recorded on %s", part.target, known.date)
    ledger.add(part.target, now)  # before the rename: a name without a record would be taken for a file of the user's
    part.publish()
    first = "" if known is not None or remote.sha256 else " (first download: trusted, and recorded)"
    logger.info("%s: %d bytes, SHA-256 %s%s", part.target, now.size, now.sha256, first)


class _Progress:
    """Says megabytes, rate and time left every few seconds."""

    def __init__(self, what: str, start: int, total: int | None):
        self._what, self._start, self._total = what, start, total
        self._begin = self._last = time.monotonic()

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last < PROGRESS_INTERVAL_S:
            return
        self._last = now
        rate = max(done - self._start, 1) / (now - self._begin)
        if self._total is None:
            logger.info("%s: %.1f MB, %.1f MB/s", self._what, done / 1e6, rate / 1e6)
            return
        left, share = format_seconds((self._total - done) / rate), 100 * done / max(self._total, 1)
        logger.info(
            "%s: %.1f of %.1f MB (%.0f%%), %.1f MB/s, %s left",
            *(self._what, done / 1e6, self._total / 1e6, share, rate / 1e6, left),
        )

    def end(self, done: int) -> None:
        took = max(time.monotonic() - self._begin, 1e-9)
        rate = (done - self._start) / took
        logger.info("%s: %.1f MB in %s (%.1f MB/s)", self._what, done / 1e6, format_seconds(took), rate / 1e6)
