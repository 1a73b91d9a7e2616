"""Downloads files, continues interrupted downloads, and checks and records every file.

A download has four steps:

1. Ask the server about the file (ETag, date, size). These and the address identify a version.
2. Transfer the bytes to `<name>.<version>.part` next to the target, with `huggingface_hub`. If this
   file exists, the download continues at its end. The bytes of two versions never mix, because
   they have different names.
3. Check the kind of the complete file, compare its SHA-256 with the recorded one, and record it.
4. Rename the file to its target.

The authors publish no hashes. The first download is therefore trusted, and its size, SHA-256 and
address are recorded in `<root>/downloads.json`. Every later download and check must give the same
bytes.
"""

import glob
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import httpx2
from huggingface_hub import constants
from huggingface_hub.file_download import http_get
from huggingface_hub.utils._http import http_backoff
from huggingface_hub.utils.logging import disable_propagation
from pydantic import BaseModel

from mmpt.errors import DataError, UserError
from mmpt.prepare.download.catalogue import CATALOGUE, File
from mmpt.prepare.download.contents import check_kind, unpack_members
from mmpt.utils.io import file_hash, write_error, write_json
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger
from mmpt.utils.validation import read_json_as

logger = get_logger(__name__)

HEADERS = {"User-Agent": "mmpt-download", "Accept-Encoding": "identity"}


class DownloadError(UserError):
    """A file cannot be downloaded, or has the wrong content."""


class Record(BaseModel):
    """The record of a file."""

    size: int
    """Size in bytes."""
    sha256: str
    """SHA-256 of the content, in hex."""
    url: str | None
    """Address that it was downloaded from; None if the user put it there."""
    date: str
    """Time of the record, in UTC."""


class _Records(BaseModel):
    """The content of `downloads.json`: the records by path."""

    format: Literal[1] = 1
    files: dict[str, Record] = {}


def download(
    names: Sequence[str],
    root: Path,
    *,
    mirror: str | None = None,
    force: bool = False,
    tries: int = 5,
    timeout_s: int = 30,
) -> None:
    """Downloads items of the catalogue. A failure does not stop the other downloads.

    Args:
        names: names of items.
        root: the folder that paths of the catalogue are relative to.
        mirror: replaces scheme and host of every address, as in https://host/prefix.
        force: download files again that exist or have changed.
        tries: number of attempts with a server that does not answer.
        timeout_s: longest time to wait for a server, in seconds.
    Raises:
        UserError: a name is unknown, or the mirror is not an address.
        DownloadError: some downloads failed. The message has one line per file.
    """
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        known = ", ".join(CATALOGUE)
        raise UserError(f"unknown items: {', '.join(unknown)}. Known: {known}.")
    if mirror is not None and not re.match(r"https?://[^/]", mirror):
        raise UserError(
            f"`--mirror` must be an address such as https://host/prefix, but is {mirror}."
        )
    constants.HF_HUB_DOWNLOAD_TIMEOUT = timeout_s  # http_get has no argument for it
    disable_propagation()  # the library has its own handler for its messages
    downloader = Downloader(root, mirror, force, tries)
    problems = []
    for name in dict.fromkeys(names):
        item = CATALOGUE[name]
        if not item.files:
            problems.append(
                f"{name}: cannot be downloaded automatically. {item.by_hand}"
            )
        try:
            busy = "another process is downloading it. Wait until it has ended."
            with exclusive(root / f".downloads/{name}.lock", "downloading", busy):
                for file in item.files:
                    try:
                        downloader.get_file(file, item.by_hand)
                    except UserError as err:
                        problems.append(f"{name}: {err} {item.if_gone}".rstrip())
        except DataError as err:  # another process holds the lock
            problems.append(f"{name}: {err}")
        except OSError as err:
            problems.append(f"{name}: {write_error(err, root)}")
    if problems:
        raise DownloadError("\n".join(problems))


@dataclass(frozen=True)
class Downloader:
    """Downloads files to their paths under `root`. `download` describes the other fields."""

    root: Path
    mirror: str | None = None
    force: bool = False
    tries: int = 5

    def get_file(self, file: File, by_hand: str = "") -> None:
        """Downloads a file and unpacks its members. Existing files are checked instead.

        Args:
            file: the file.
            by_hand: how to get a file without an address, for the message.
        Raises:
            UserError: no address gives the file, its content is not the recorded one, it has
                another kind, or it does not have the members.
        """
        target = self.root / file.target
        if not file.urls and not target.exists():
            raise DownloadError(
                f"cannot be downloaded automatically. {by_hand} Put it at {target}."
            )
        # Check the members that exist. If all do, the archive itself is not needed.
        missing = {}
        for member, name in file.members.items():
            path = self.root / name
            if path.exists() and not self.force:
                self._check(name)
            else:
                missing[member] = name
        if file.members and not missing:
            return
        is_wanted = self.force or not target.exists()
        if file.urls and is_wanted:
            self._download(file.target, file.urls)
        else:
            self._check(file.target)
        if missing:
            paths = {member: self.root / name for member, name in missing.items()}
            unpack_members(target, paths)
        for member, name in missing.items():
            path = self.root / name
            url = f"{file.urls[0]}#{member}"
            self._record(name, _make_record(path, url))
            logger.info("%s: unpacked", path)

    def _check(self, name: str) -> None:
        """Compares a file with its record. Without one, checks its kind and records it."""
        path = self.root / name
        known = self._records().get(name)
        now = _make_record(path, None)
        if known is None:
            try:
                check_kind(path, path.suffix)
            except DataError as err:
                raise DataError(f"{path}: {err}. Download it again.") from None
            self._record(name, now)
            logger.info("%s: already there, recorded now", path)
        elif known.sha256 == now.sha256:
            logger.info("%s: already there and intact", path)
        else:
            raise DownloadError(
                f"{path}: has changed since it was recorded on {known.date}: it had {known.size} "
                f"bytes and SHA-256 {known.sha256}, and now has {now.size} bytes and {now.sha256}. "
                "Replace it with `--force`, or remove its entry from downloads.json if the change "
                "is yours."
            )

    def _download(self, name: str, urls: Sequence[str]) -> None:
        """Downloads a file from the first address that works."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        problems = []
        for url in urls:
            if self.mirror is not None:
                _, _, _, path = url.split("/", 3)  # https://host/path
                url = f"{self.mirror.rstrip('/')}/{path}"
            try:
                part = self._transfer(url, target)
                self._accept(part, name, url)
                return
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UserError) as err:
                message = str(err).strip() or type(err).__name__
                reason = message.splitlines()[0].rstrip(".")
                problem = f"{url}: {reason}"
                problems.append(problem)
                logger.warning("%s", problem)
        # All addresses failed. Partial files are kept for the next run, unless they are empty.
        kept = []
        for part in _partial_files(target):
            size = part.stat().st_size
            if size == 0:
                part.unlink()
                continue
            megabytes = size / 1e6
            kept.append(f"{megabytes:.1f} MB in {part}")
        again = ""
        if kept:
            again = f" Kept: {', '.join(kept)}. Run the same command again to continue."
        raise DownloadError(
            f"{target}: cannot be downloaded. {'; '.join(problems)}.{again}"
        )

    def _transfer(self, url: str, target: Path) -> Path:
        """Downloads `url` to a file next to `target`, or continues an earlier download of it.

        Returns:
            The path of the downloaded file.
        """
        wait_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
        max_retries = self.tries - 1
        head = http_backoff(
            "HEAD", url, max_retries=max_retries, headers=HEADERS, timeout=wait_s
        )
        # These headers identify a version of the file. If the server compresses the file, they
        # describe the compressed bytes and are of no use.
        etag = None
        date = None
        size = None
        if not head.is_error and "Content-Encoding" not in head.headers:
            etag = head.headers.get("ETag")
            date = head.headers.get("Last-Modified")
            size = head.headers.get("Content-Length")
        version = f"{url} {etag} {date} {size}"
        digest = hashlib.sha256(version.encode()).hexdigest()
        part = target.with_name(f"{target.name}.{digest[:8]}.part")
        headers = dict(HEADERS)
        if etag and not etag.startswith("W/"):
            # If the file changes during the transfer, the server sends it from the beginning.
            headers["If-Range"] = etag
        # A file whose version is unknown is downloaded from the beginning.
        is_known = size and (etag or date)
        with open(part, "ab" if is_known else "wb") as data:
            for attempt in range(1, self.tries + 1):
                try:
                    http_get(
                        url,
                        data,
                        resume_size=data.tell(),
                        headers=headers,
                        expected_size=int(size) if size else None,
                    )
                    break
                except httpx2.ReadError:
                    # http_get retries all other interruptions itself.
                    if attempt == self.tries:
                        raise
            data.flush()
            os.fsync(data.fileno())
        return part

    def _accept(self, part: Path, name: str, url: str) -> None:
        """Checks and records a complete download, and renames it. Removes a wrong file."""
        target = self.root / name
        known = self._records().get(name)
        now = _make_record(part, url)
        try:
            check_kind(part, target.suffix)
            if known is not None and known.sha256 != now.sha256 and not self.force:
                raise DownloadError(
                    f"the SHA-256 was {known.sha256} at the first download ({known.date}), but is "
                    f"{now.sha256} now; take the new file with `--force` if you trust it"
                )
        except UserError:
            part.unlink()  # or the next run would continue with the wrong file
            raise
        # The record is written first. A file without a record counts as put there by the user.
        self._record(name, now)
        os.replace(part, target)
        for other in _partial_files(target):  # of other versions and addresses
            other.unlink()
        logger.info("%s: %d bytes, SHA-256 %s", target, now.size, now.sha256)
        logger.info("%s: downloaded", target)

    def _records(self) -> dict[str, Record]:
        """Returns the records by path. Raises DataError if `downloads.json` is broken."""
        path = self.root / "downloads.json"
        if not path.exists():
            return {}
        try:
            return read_json_as(path, _Records, "").files
        except DataError as err:
            raise DataError(
                f"{str(err).rstrip()} Remove it. The files that are here are then recorded again, "
                "as they are."
            ) from None

    def _record(self, name: str, record: Record) -> None:
        """Adds a record to `downloads.json`. Several processes may do so at the same time."""
        lock = self.root / ".downloads/records.lock"
        with exclusive(lock, "writing downloads.json"):
            files = self._records()
            files[name] = record
            sorted_files = dict(sorted(files.items()))
            records = _Records(files=sorted_files)
            write_json(self.root / "downloads.json", records.model_dump())


def _make_record(path: Path, url: str | None) -> Record:
    """Returns the record of a file, with the current time."""
    now = datetime.now(UTC)
    return Record(
        size=path.stat().st_size,
        sha256=file_hash(path),
        url=url,
        date=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _partial_files(target: Path) -> list[Path]:
    """Returns the unfinished downloads of a file."""
    name = glob.escape(target.name)
    return sorted(target.parent.glob(f"{name}.*.part"))
