"""`mmpt download`: fetches checkpoints, S3D weights, lists and annotations for the YAMLs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.main import Command
from mmpt.errors import UserError
from mmpt.prepare.download.catalogue import CATALOGUE, list_catalogue
from mmpt.prepare.download.downloader import download as download_items


def download(
    names: Annotated[
        list[str] | None,
        Argument(
            metavar="NAME",
            help=f"Items to download: {', '.join(CATALOGUE)}.",
            autocompletion=lambda: list(CATALOGUE),
        ),
    ] = None,
    *,
    root: Annotated[
        Path, Option(help="Project folder that contains data/ and runs/.")
    ] = Path(),
    mirror: Annotated[
        str | None,
        Option(
            metavar="URL", help="Server that replaces scheme and host of every address."
        ),
    ] = None,
    list_items: Annotated[
        bool, Option("--list", help="List the items and download nothing.")
    ] = False,
    force: Annotated[
        bool,
        Option(
            "--force", help="Download files again even if they exist or have changed."
        ),
    ] = False,
    tries: Annotated[
        int, Option(min=1, help="Number of requests to a server that does not respond.")
    ] = 5,
    timeout: Annotated[
        int,
        Option(
            min=1, metavar="S", help="Seconds without a response that end a request."
        ),
    ] = 30,
) -> None:
    """Download checkpoints, S3D weights, lists and annotations to the paths that the YAMLs name.

    An interrupted download continues when the same command is run again. Sizes and SHA-256 hashes
    are recorded in `<root>/downloads.json`. The authors publish no hashes, so the first download
    of a file is trusted, and every later one is compared with it.
    """
    if list_items:
        print(list_catalogue())
    elif names:
        download_items(
            names, root, mirror=mirror, force=force, tries=tries, timeout_s=timeout
        )
    else:
        raise UserError("name something to download; `--list` lists the items.")


main = Command(download, interrupt_message="run the same command again to continue")
