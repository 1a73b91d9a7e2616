"""Download checkpoints, S3D weights, lists and annotations to where the YAMLs look for them.

    python scripts/download.py videoclip s3d how2-lists
    python scripts/download.py --list

An interrupted download continues when the same command is run again. Sizes and SHA-256 are recorded
in `<root>/downloads.json`: authors publish no hashes, so the first download is trusted and every
later one is compared with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpt.prepare.download.catalogue import CATALOGUE
from mmpt.prepare.download.items import download, list_catalogue
from mmpt.utils.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print(list_catalogue())
        return 0
    if not options.names:
        parser.error("name something to download, or see what there is with --list")

    def work() -> None:
        download(
            options.names,
            options.root,
            mirror=options.mirror,
            force=options.force,
            tries=options.tries,
            timeout_s=options.timeout,
        )

    return run_command(work, stopped="run the same command again to continue")


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(f"must be at least 1, but is {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"items to download: {', '.join(CATALOGUE)}")
    add("--root", type=Path, default=Path(), help="folder of the project (default: this one)")
    add("--mirror", metavar="URL", help="replaces scheme and host of every address")
    add("--list", action="store_true", help="list the items, and download nothing")
    add("--force", action="store_true", help="download files again that are there or have changed")
    add("--tries", type=_at_least_one, default=5, help="requests to a silent server (5)")
    add(
        "--timeout",
        type=_at_least_one,
        default=30,
        metavar="S",
        help="longest silence of a server in seconds (30)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
