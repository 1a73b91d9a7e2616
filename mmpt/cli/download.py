"""Downloads checkpoints, S3D weights, lists and annotations to where the YAMLs look for them."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.app import Command
from mmpt.errors import UserError
from mmpt.prepare.download.catalogue import CATALOGUE, list_catalogue
from mmpt.prepare.download.downloader import download as download_items


def download(
    names: Annotated[
        list[str] | None,
        Argument(metavar="NAME", help=f"Items to download: {', '.join(CATALOGUE)}."),
    ] = None,
    *,
    root: Annotated[Path, Option(help="Folder of the project.")] = Path(),
    mirror: Annotated[
        str | None, Option(metavar="URL", help="Replaces scheme and host of every address.")
    ] = None,
    list_items: Annotated[bool, Option("--list", help="List the items, download nothing.")] = False,
    force: Annotated[
        bool, Option("--force", help="Download files again that are there or have changed.")
    ] = False,
    tries: Annotated[int, Option(min=1, help="Requests to a silent server.")] = 5,
    timeout: Annotated[
        int, Option(min=1, metavar="S", help="Longest silence of a server, in seconds.")
    ] = 30,
) -> None:
    """Download checkpoints, S3D weights, lists and annotations to where the YAMLs look for them.

    An interrupted download continues when the same command is run again. Sizes and SHA-256 are
    recorded in `<root>/downloads.json`: authors publish no hashes, so the first download is trusted
    and every later one is compared with it.
    """
    if list_items:
        print(list_catalogue())
    elif names:
        download_items(names, root, mirror=mirror, force=force, tries=tries, timeout_s=timeout)
    else:
        raise UserError("name something to download, or see what there is with `--list`.")


main = Command(download, stopped="run the same command again to continue")
