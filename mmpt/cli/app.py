"""`mmpt app`: opens a page that searches an index of moments and aligns transcripts."""

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from mmpt.cli.main import Command, Device, choose_device
from mmpt.errors import DataError, LaunchError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments and options of the command."""

    index: Annotated[
        Path, Argument(metavar="INDEX", help="Folder that mmpt index has made.")
    ]
    videos: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Folder of the videos. Default: where they were indexed.",
        ),
    ] = None
    features: Annotated[
        Path | None,
        Option(
            metavar="DIR",
            help="Folder of their features. Default: where they were indexed.",
        ),
    ] = None
    host: Annotated[
        str, Option(help="Address to listen on. 0.0.0.0 accepts other machines.")
    ] = "127.0.0.1"
    top: Annotated[int, Option(min=1, help="Moments per search.")] = 12
    port: Annotated[
        int | None,
        Option(min=1, max=65535, help="Default: the first free port from 7860."),
    ] = None
    model: Annotated[
        str | None,
        Option(help="Path or Hub name of the model. Default: as stored in the index."),
    ] = None
    checkpoint: Annotated[str | None, Option(help="File name of its checkpoint.")] = (
        None
    )
    encoder: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Encoder for alignment, as for mmpt extract. Default: the one that the model was "
            "trained with.",
        ),
    ] = None
    s3d: Annotated[
        Path | None,
        Option(help="S3D weights, to align videos. Default: pretrained_models/."),
    ] = None
    device: Device = None


def app(options: Options) -> None:
    """Open a page that finds the moments of an index that fit a text, and plays them.

    The page also aligns a transcript with a video. It is served until Ctrl-C, and only to this
    machine unless `--host` is given. Only the videos of the index are served.
    """
    named = [options.videos, options.features]
    folders = [folder for folder in named if folder is not None]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: must be a folder, but is not.")
    _check_host(options.host)
    # Deferred, so that --help and argument errors do not wait for these imports.
    from mmpt.app.page import serve_page
    from mmpt.app.video_files import VideoFiles
    from mmpt.inference.moment_index import MomentIndex

    index = MomentIndex.load(
        options.index,
        options.model,
        options.checkpoint,
        device=choose_device(options.device),
        encoder=options.encoder,
        s3d=options.s3d,
    )
    files = VideoFiles(index.windows.names, [*folders, *index.settings.folders])
    with serve_page(
        index, files, host=options.host, port=options.port, top=options.top
    ) as url:
        logger.info("open %s in a browser; Ctrl-C closes the page", url)
        while True:
            time.sleep(1)


def _check_host(host: str) -> None:
    """Raises LaunchError if no server can listen at this address.

    Gradio would report that all ports are in use, after it has tried each of them.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        family, kind, protocol, _name, address = found[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.bind(address)
    except (OSError, UnicodeError) as err:
        raise LaunchError(
            f"`--host` must be an address or a name of this machine, but is {host!r} ({err}). "
            "Give 127.0.0.1 for this machine only, or 0.0.0.0 to let others in."
        ) from err


main = Command(app, options=Options, interrupt_message="the page is closed")


if __name__ == "__main__":
    sys.exit(main())
