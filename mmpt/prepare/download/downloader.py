"""Downloads files: resumes, checks their kind, records them, and gives them their names last.

`huggingface_hub` transfers the bytes. They go to `<name>.<version>.part` next to the target, where
<version> stands for the address and for what the server says about the file (ETag, date, size).
So the bytes of two versions never mix, and a run that was killed continues with the same command.

Authors publish no hashes. The first download is trusted, and its size, SHA-256 and address are
recorded in `<root>/downloads.json`. Every later download and check must give the same bytes.
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
    """A file cannot be downloaded, or is not the one that it should be."""


class Record(BaseModel):
    """A file: its bytes, their SHA-256, its address (None: put there by hand), the date (UTC)."""

    size: int
    sha256: str
    url: str | None
    date: str


class _Records(BaseModel):
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
    """Downloads the items called `names` to their places under `root`, each as far as possible.

    Args:
        mirror: replaces scheme and host of every address, as in https://host/prefix.
        force: download files again that are there or have changed.
        tries: how often to ask a server that does not answer.
        timeout_s: the longest silence of a server, in seconds.
    Raises:
        UserError: an unknown name, or a mirror that is no address.
        DownloadError: what failed, one line per file, after all were tried.
    """
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        raise UserError(f"{', '.join(unknown)}: not known. There is: {', '.join(CATALOGUE)}.")
    if mirror is not None and not re.match(r"https?://[^/]", mirror):
        raise UserError(
            f"`--mirror` must be an address such as https://host/prefix, but is {mirror}."
        )
    constants.HF_HUB_DOWNLOAD_TIMEOUT = timeout_s  # http_get has no argument for it
    disable_propagation()  # the library's messages have a handler of their own
    downloader = Downloader(root, mirror, force, tries)
    problems = []
    for name in dict.fromkeys(names):
        item = CATALOGUE[name]
        if not item.files:
            problems.append(f"{name}: cannot be downloaded by a program. {item.by_hand}")
        try:
            refusal = "another process is downloading it. Wait until it has ended."
            with exclusive(root / f".downloads/{name}.lock", "downloading", refusal):
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
    """Downloads files to their places under `root`; see `download` for the other fields."""

    root: Path
    mirror: str | None = None
    force: bool = False
    tries: int = 5

    def get_file(self, file: File, by_hand: str = "") -> None:
        """Downloads `file` and unpacks its members, or checks what is there.

        Raises:
            UserError: no address gives the file, it has another content than recorded, is of
                another kind, or does not have the members.
        """
        target = self.root / file.target
        if not file.urls and not target.exists():
            raise DownloadError(f"cannot be downloaded by a program. {by_hand} Put it at {target}.")
        missing = {}
        for member, name in file.members.items():
            if self.force or not (self.root / name).exists():
                missing[member] = name
            else:
                self._check(name)
        if file.members and not missing:
            return  # the archive itself may be removed
        if file.urls and (self.force or not target.exists()):
            self._fetch(file.target, file.urls)
        else:
            self._check(file.target)
        if missing:
            unpack_members(target, {member: self.root / name for member, name in missing.items()})
        for member, name in missing.items():
            self._record(name, _record_of(self.root / name, f"{file.urls[0]}#{member}"))
            logger.info("%s: unpacked", self.root / name)

    def _check(self, name: str) -> None:
        """Compares a file with its record. Without one, checks its kind and records it."""
        path = self.root / name
        known, now = self._records().get(name), _record_of(path, None)
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

    def _fetch(self, name: str, urls: Sequence[str]) -> None:
        """Downloads a file from the first address that gives it."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        problems = []
        for url in urls:
            if self.mirror is not None:
                url = f"{self.mirror.rstrip('/')}/{url.split('/', 3)[3]}"
            try:
                self._accept(self._receive(url, target), name, url)
                return
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UserError) as err:
                reason = (str(err).strip() or type(err).__name__).splitlines()[0]
                problems.append(f"{url}: {reason.rstrip('.')}")
                logger.warning("%s", problems[-1])
        kept = []
        for part in _parts_of(target):
            if size := part.stat().st_size:
                kept.append(f"{size / 1e6:.1f} MB in {part}")
            else:
                part.unlink()
        again = f" Kept: {', '.join(kept)}. Run the same command again to continue." if kept else ""
        raise DownloadError(f"{target}: cannot be downloaded. {'; '.join(problems)}.{again}")

    def _receive(self, url: str, target: Path) -> Path:
        """Downloads `url` next to `target`, continuing an earlier download; returns its path."""
        wait_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
        head = http_backoff(
            "HEAD", url, max_retries=self.tries - 1, headers=HEADERS, timeout=wait_s
        )
        # By these marks a server tells one version of a file from another.
        names = ("ETag", "Last-Modified", "Content-Length")
        is_usable = not head.is_error and "Content-Encoding" not in head.headers
        etag, date, size = (head.headers.get(name) if is_usable else None for name in names)
        version = hashlib.sha256(f"{url} {etag} {date} {size}".encode()).hexdigest()[:8]
        part = target.with_name(f"{target.name}.{version}.part")
        headers = dict(HEADERS)
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag  # should the file change during the transfer
        with open(part, "ab" if size and (etag or date) else "wb") as data:
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
                except httpx2.ReadError:  # http_get itself retries all other interruptions
                    if attempt == self.tries:
                        raise
            data.flush()
            os.fsync(data.fileno())
        return part

    def _accept(self, part: Path, name: str, url: str) -> None:
        """Checks the whole file, records it, and gives it its name. Removes a wrong file."""
        target = self.root / name
        known, now = self._records().get(name), _record_of(part, url)
        try:
            check_kind(part, target.suffix)
            if known is not None and known.sha256 != now.sha256 and not self.force:
                raise DownloadError(
                    f"the SHA-256 was {known.sha256} at the first download ({known.date}), but is "
                    f"{now.sha256} now; take the new file with `--force` if you trust it"
                )
        except UserError:
            part.unlink()  # so that running the command again can help
            raise
        # The record comes first: without one, the file would be taken for one put there by hand.
        self._record(name, now)
        os.replace(part, target)
        for other in _parts_of(target):  # of other versions and addresses
            other.unlink()
        logger.info("%s: %d bytes, SHA-256 %s", target, now.size, now.sha256)
        logger.info("%s: downloaded", target)

    def _records(self) -> dict[str, Record]:
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
        """Writes a record. Several processes may do so at the same time."""
        with exclusive(self.root / ".downloads/records.lock", "writing downloads.json"):
            files = self._records() | {name: record}
            records = _Records(files=dict(sorted(files.items())))
            write_json(self.root / "downloads.json", records.model_dump())


def _record_of(path: Path, url: str | None) -> Record:
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Record(size=path.stat().st_size, sha256=file_hash(path), url=url, date=date)


def _parts_of(target: Path) -> list[Path]:
    return sorted(target.parent.glob(f"{glob.escape(target.name)}.*.part"))
