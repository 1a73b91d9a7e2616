"""Downloads items of the catalogue, and lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from huggingface_hub import constants
from huggingface_hub.utils.logging import disable_propagation

from mmpt.errors import UserError
from mmpt.prepare.download.archives import unpack_members
from mmpt.prepare.download.catalogue import CATALOGUE, File, Item
from mmpt.prepare.download.fetch import DownloadError, check_file, fetch_file
from mmpt.prepare.download.hub import fetch_folder
from mmpt.prepare.download.kinds import kind_of
from mmpt.prepare.download.records import Records, record_of
from mmpt.utils.lock import HeldError, exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


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
        DownloadError: what failed, one line per item, after all items were tried.
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
    records = Records(root)
    problems = []
    for name in dict.fromkeys(names):
        item = CATALOGUE[name]
        try:
            with exclusive(records.locks / f"{name}.lock", "downloading", wait=False):
                _download_item(item, records, mirror and mirror.rstrip("/"), force, tries)
        except HeldError:
            problems.append(f"{name}: another process is downloading it. Wait until it has ended.")
        except UserError as err:
            problems.append(f"{name}: {err} {item.if_gone}".rstrip())
        except OSError as err:
            problems.append(
                f"{name}: {root} cannot be written ({err}). Make room, or give another folder "
                "with `--root`."
            )
    if problems:
        raise DownloadError("\n".join(problems))


def _download_item(
    item: Item, records: Records, mirror: str | None, force: bool, tries: int
) -> None:
    if not item.files and item.folder is None:
        raise DownloadError(f"cannot be downloaded by a program. {item.by_hand}")
    if item.folder is not None:
        outcome = fetch_folder(item.folder, records, endpoint=mirror, force=force)
        logger.info("%s: %s", records.root / item.folder.target, outcome)
    problems = []
    for file in item.files:
        urls = dict.fromkeys(_mirrored(url, mirror) for url in file.urls)
        try:
            _download_file(replace(file, urls=tuple(urls)), records, item.by_hand, force, tries)
        except UserError as err:
            problems.append(str(err))
    if problems:
        raise DownloadError(" ".join(problems))


def _download_file(file: File, records: Records, by_hand: str, force: bool, tries: int) -> None:
    target = records.root / file.target
    if not file.urls and not target.exists():
        raise DownloadError(f"cannot be downloaded by a program. {by_hand} Put it at {target}.")
    if not file.urls:
        logger.info("%s: %s", target, check_file(file, records))
        return
    members = {records.root / place: member for member, place in file.members.items()}
    missing = {place: member for place, member in members.items() if force or not place.exists()}
    if missing or not members:  # the archive itself may be removed when its members are there
        outcome = fetch_file(file, records, force=force, tries=tries)
        logger.info("%s: %s", target, outcome)
    if missing:
        unpack_members(target, missing)
    for place, member in members.items():
        if place in missing:
            records.add(place, record_of(place, f"{file.urls[0]}#{member}"))
            logger.info("%s: unpacked", place)
        else:
            outcome = check_file(File(file.members[member], kind_of(member)), records)
            logger.info("%s: %s", place, outcome)


def _mirrored(url: str, mirror: str | None) -> str:
    if mirror is None:
        return url
    return mirror + urlunsplit(("", "", *urlsplit(url)[2:]))


def list_catalogue() -> str:
    """Returns a text with the items, where their files go, and where they come from."""
    lines = []
    indent = " " * 16
    for name, item in CATALOGUE.items():
        lines.append(f"{name:<14} {item.about}")
        for file in item.files:
            lines += [f"{indent} -> {place}" for place in file.members.values() or [file.target]]
        if item.folder is not None:
            lines.append(f"{indent} -> {item.folder.target}/")
        for file in item.files:
            lines += [f"{indent} from {url}" for url in file.urls]
        source = f"by hand: {item.by_hand}" if item.by_hand else f"published in: {item.source}"
        lines.append(f"{indent} {source}")
    return "\n".join(lines)
