"""Download what the documents name (checkpoints, S3D weights, lists, annotations) to where the YAMLs look for it.

    python scripts/download.py videoclip s3d how2-lists
    python scripts/download.py --list

An interrupted download goes on where it stopped when the same command is run again. Sizes and SHA-256 are recorded in
`<root>/downloads.json`: authors publish no hashes, so the first download is trusted and every later one compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from download_catalogue import CATALOGUE, File, Item

from mmpt.errors import UserError
from mmpt.utils.command import run_command
from mmpt.utils.download import Outcome, Patience, Remote, check_there, fetch_file
from mmpt.utils.download_ledger import Ledger, record_of
from mmpt.utils.file_kinds import Kind
from mmpt.utils.http_range import mirrored
from mmpt.utils.hub import fetch_from_hub
from mmpt.utils.log import get_logger
from mmpt.utils.part_file import DownloadError
from mmpt.utils.unpack import unpack_member

logger = get_logger("download")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print(list_catalogue())
        return 0
    if not options.names:
        parser.error("name something to download, or see what there is with --list")
    patience = Patience(tries=options.tries, timeout_s=options.timeout)

    def work() -> None:
        try:
            download(options.names, options.root, mirror=options.mirror, force=options.force, patience=patience)
        except OSError as err:
            what = f"{options.root}: cannot be written ({err}); give another folder with `--root`."
            raise DownloadError(what) from err

    return run_command(work, stopped="run the same command again to go on")


def download(
    names: Sequence[str],
    root: Path,
    *,
    mirror: str | None = None,
    force: bool = False,
    patience: Patience | None = None,
) -> None:
    """Download the items called `names`, each as far as it goes.

    Raises:
        UserError: an unknown name; or what went wrong, a line for each item, after all were tried.
    """
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown:
        raise UserError(f"{', '.join(unknown)}: not known. There is: {', '.join(CATALOGUE)}.")
    if mirror is not None and (urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc):
        raise UserError(f"`--mirror` must be an address such as https://host/prefix, but is {mirror}.")
    problems = []
    for name in dict.fromkeys(names):
        try:
            _Fetch(Ledger(root), mirror, force, patience or Patience()).item(CATALOGUE[name])
        except UserError as err:
            problems.append(f"{name}: {err}" + (f" {CATALOGUE[name].if_gone}" if CATALOGUE[name].if_gone else ""))
    if problems:
        raise DownloadError("\n".join(problems))


class _Fetch:
    """The settings of one run of the command, and how each kind of entry is fetched with them."""

    def __init__(self, ledger: Ledger, mirror: str | None, force: bool, patience: Patience):
        self._ledger, self._mirror, self._force, self._patience = ledger, mirror, force, patience

    def item(self, item: Item) -> None:
        if not item.files and item.folder is None:
            raise DownloadError(f"cannot be downloaded by a program. {item.by_hand}")
        if item.folder is not None:
            folder = self._ledger.root / item.folder.target
            outcome = fetch_from_hub(
                *(item.folder.repo, item.folder.files, folder, self._ledger),
                endpoint=self._mirror and self._mirror.rstrip("/"),
                force=self._force,
            )
            logger.info("%s: %s", folder, outcome)
        problems = []
        for file in item.files:
            try:
                self._file(file, item.by_hand)
            except UserError as err:
                problems.append(str(err))
        if problems:
            raise DownloadError(" ".join(problems))

    def _file(self, file: File, by_hand: str) -> None:
        target = self._ledger.root / file.target
        remote = Remote(tuple(dict.fromkeys(mirrored(url, self._mirror) for url in file.urls)), file.kind, file.sha256)
        if not file.urls:
            if not target.exists():
                raise DownloadError(f"cannot be downloaded by a program. {by_hand} Put it at {target}.")
            logger.info("%s: %s", target, check_there(remote, target, self._ledger))
            return
        places = {self._ledger.root / place: member for member, place in file.members.items()}
        missing = [place for place in places if self._force or not place.exists()]
        if missing or not places:  # with all its members there, an archive may have been removed
            logger.info("%s: %s", target, self._fetch(remote, target))
        for place, member in places.items():
            if place in missing:
                unpack_member(target, member, place)
                self._ledger.add(place, record_of(place, f"{remote.urls[0]}#{member}"))
                logger.info("%s: unpacked", place)
            else:
                logger.info("%s: %s", place, check_there(Remote((), _kind_of(place)), place, self._ledger))

    def _fetch(self, remote: Remote, target: Path) -> Outcome:
        return fetch_file(remote, target, self._ledger, force=self._force, patience=self._patience)


def _kind_of(place: Path) -> Kind:
    kinds: dict[str, Kind] = {".json": "json", ".pkl": "pickle"}
    return kinds.get(place.suffix, "text")


def list_catalogue() -> str:
    """Return what there is to download, where it goes, and where it comes from."""
    lines = []
    for name, item in CATALOGUE.items():
        lines.append(f"{name:<14} {item.about}")
        places = [place for file in item.files for place in (list(file.members.values()) or [file.target])]
        places += [f"{item.folder.target}/"] if item.folder else []
        lines += [f"{'':<14}   -> {place}" for place in places]
        lines += [f"{'':<14}   from {url}" for file in item.files for url in file.urls]
        lines.append(f"{'':<14}   {'by hand: ' + item.by_hand if item.by_hand else 'published in: ' + item.source}")
    return "\n".join(lines)


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"must be at least 1, but is {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to download: {', '.join(CATALOGUE)}")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the project (default: this one)")
    parser.add_argument("--mirror", metavar="URL", help="take this in place of every address's scheme and host")
    parser.add_argument("--list", action="store_true", help="say what there is, and download nothing")
    parser.add_argument("--force", action="store_true", help="download again what is there or has changed")
    parser.add_argument("--tries", type=_at_least_one, default=5, help="tries in a row without a new byte (5)")
    parser.add_argument("--timeout", type=_at_least_one, default=30, metavar="S", help="longest silence, seconds (30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
