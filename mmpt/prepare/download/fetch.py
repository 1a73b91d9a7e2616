"""Downloads a file: resumes, checks its kind and SHA-256, records it, and gives it its name last.

`huggingface_hub` transfers the bytes. They go to `<name>.<version>.part` next to the target, where
<version> stands for the address and for what the server says about the file (ETag, date, size).
So the bytes of two versions never mix, and a run that was killed continues with the same command.
"""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._http import http_backoff

from mmpt.errors import UserError
from mmpt.prepare.download.catalogue import File
from mmpt.prepare.download.kinds import check_kind
from mmpt.prepare.download.records import Record, Records, record_of
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

HEADERS = {"User-Agent": "mmpt-download", "Accept-Encoding": "identity"}


class DownloadError(UserError):
    """A file cannot be downloaded, or is not the one that it should be."""


class Outcome(StrEnum):
    """The result of `fetch_file`."""

    FETCHED = "downloaded"
    INTACT = "already there and intact"
    FOUND = "already there, recorded now"


def fetch_file(file: File, records: Records, *, force: bool = False, tries: int = 5) -> Outcome:
    """Downloads `file`, or checks the one that is there.

    Args:
        force: download it although it is there or was recorded with another content.
        tries: how often to ask a server that does not answer.
    Raises:
        DownloadError: no address gives the file, it has another content than recorded, or the
            disk is full.
    """
    target = records.root / file.target
    if target.exists() and not force:
        return check_file(file, records)
    target.parent.mkdir(parents=True, exist_ok=True)
    problems = []
    for url in file.urls:
        try:
            part = _receive(url, target, tries)
            _accept(part, url, file, records, force)
        except UserError as err:
            problems.append(f"{url}: {str(err).rstrip('.')}")
            logger.warning("%s", problems[-1])
        else:
            return Outcome.FETCHED
    kept = [f"{part.stat().st_size / 1e6:.1f} MB in {part}" for part in _parts_of(target)]
    again = f" Kept: {', '.join(kept)}. Run the same command again to continue." if kept else ""
    raise DownloadError(f"{target}: cannot be downloaded. {'; '.join(problems)}.{again}")


def check_file(file: File, records: Records) -> Outcome:
    """Compares the file that is there with its record. Without one, checks its kind and records it.

    Raises:
        DownloadError: another content than recorded.
        DataError: a file of another kind, or one that is cut short.
    """
    target = records.root / file.target
    known, now = records.get(target), record_of(target, None)
    if known is not None and known.sha256 != now.sha256:
        raise DownloadError(
            f"{target}: has changed since it was recorded on {known.date}: it had {known.size} "
            f"bytes and SHA-256 {known.sha256}, and now has {now.size} bytes and {now.sha256}. "
            "Replace it with `--force`, or remove its entry from downloads.json if the change is "
            "yours."
        )
    if file.sha256 not in (None, now.sha256):
        raise DownloadError(
            f"{target}: its SHA-256 must be {file.sha256}, but is {now.sha256}. Remove it, or "
            "replace it with `--force`."
        )
    if known is not None:
        return Outcome.INTACT
    check_kind(target, file.kind, str(target))
    records.add(target, now)
    return Outcome.FOUND


@dataclass(frozen=True)
class _Version:
    """The marks by which a server tells one version of a file from another; None if it has none."""

    etag: str | None = None
    date: str | None = None
    size: int | None = None


def _receive(url: str, target: Path, tries: int) -> Path:
    """Downloads `url` next to `target`, continuing an earlier download, and returns its path."""
    part = None
    try:
        version = _version_of(url, tries)
        is_known = version.etag is not None or version.date is not None
        marks = f"{url} {version}".encode()
        part = target.with_name(f"{target.name}.{hashlib.sha256(marks).hexdigest()[:8]}.part")
        headers = dict(HEADERS)
        if version.etag is not None and not version.etag.startswith("W/"):
            headers["If-Range"] = version.etag  # should the file change during the transfer
        with open(part, "ab" if is_known else "wb") as data:
            for attempt in range(1, tries + 1):
                try:
                    http_get(
                        url,
                        data,
                        resume_size=data.tell(),
                        headers=headers,
                        expected_size=version.size,
                        displayed_filename=target.name,
                    )
                    break
                except httpx2.ReadError:  # http_get itself retries all other interruptions
                    if attempt == tries:
                        raise
            data.flush()
            os.fsync(data.fileno())
        return part
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as err:
        is_beyond_end = isinstance(err, HfHubHTTPError) and err.response.status_code == 416
        if part is not None and part.exists() and (is_beyond_end or not part.stat().st_size):
            part.unlink()
        raise DownloadError(_reason(err)) from err


def _version_of(url: str, tries: int) -> _Version:
    response = http_backoff(
        "HEAD",
        url,
        max_retries=tries - 1,
        headers=HEADERS,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    if response.is_error or "Content-Encoding" in response.headers:
        return _Version()
    size = response.headers.get("Content-Length", "")
    return _Version(
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        int(size) if size.isdecimal() else None,
    )


def _reason(err: Exception) -> str:
    if isinstance(err, HfHubHTTPError):
        return f"the server answers {err.response.status_code} {err.response.reason_phrase}"
    return (str(err).strip() or type(err).__name__).splitlines()[0]


def _accept(part: Path, url: str, file: File, records: Records, force: bool) -> None:
    """Checks the whole file, records it, and gives it its name. Removes a wrong file."""
    target = records.root / file.target
    now, known = record_of(part, url), records.get(target)
    try:
        check_kind(part, file.kind, "the downloaded file")
        _check_hash(file, known, now, force)
    except UserError:
        part.unlink()  # so that running the command again can help
        raise
    # The record comes first: without one, the file would be taken for one put there by hand.
    records.add(target, now)
    os.replace(part, target)
    for other in _parts_of(target):  # of other versions and addresses
        other.unlink()
    trusted = known is None and file.sha256 is None
    note = " (first download: trusted and recorded)" if trusted else ""
    logger.info("%s: %d bytes, SHA-256 %s%s", target, now.size, now.sha256, note)


def _check_hash(file: File, known: Record | None, now: Record, force: bool) -> None:
    if file.sha256 not in (None, now.sha256):
        raise DownloadError(f"the SHA-256 must be {file.sha256}, but is {now.sha256}")
    if known is not None and known.sha256 != now.sha256 and not force:
        raise DownloadError(
            f"the SHA-256 was {known.sha256} at the first download ({known.date}), but is "
            f"{now.sha256} now; take the new file with `--force` if you trust it"
        )


def _parts_of(target: Path) -> list[Path]:
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.*.part"))
