"""`mmpt index`: embeds windows of videos into an index that `mmpt search` searches."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from mmpt.cli.embed import VideoOptions, find_videos, load_model, read_features
from mmpt.cli.main import CONTINUE, Command
from mmpt.errors import LaunchError
from mmpt.shards.shard_videos import ShardVideos
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options(VideoOptions):
    """The arguments and options of the command."""

    folder: Annotated[
        Path,
        Argument(metavar="INDEX", help="Folder of the index. Created if missing."),
    ]
    shards: Annotated[
        Path | None, Option(help="Folder of feature shards to embed, from mmpt pack.")
    ] = None
    window: Annotated[
        int | None,
        Option(min=1, help="Seconds of a window. Default: max_video_len."),
    ] = None
    stride: Annotated[
        int | None,
        Option(min=1, help="Seconds between windows. Default: half a window."),
    ] = None
    index_type: Annotated[
        str | None,
        Option(
            "--type",
            help="As for faiss.index_factory: Flat, HNSW32, IVF1000,PQ96 ... "
            "Default: by the number of windows.",
        ),
    ] = None


def index(options: Options) -> None:
    """Build an index of the moments of many videos, or add new videos to it.

    Give one of `--videos`, `--features` and `--shards`. Videos whose names are in the index are
    skipped, so the same command continues an interrupted run, and adds the new videos of a larger
    folder. `mmpt search` searches the index.
    """
    videos = _find(options)
    # Deferred, so that --help and argument errors do not wait for this import.
    from mmpt.inference.moment_writer import open_writer

    model = load_model(options)
    if options.shards:
        model.features.check_folder(options.shards, str(options.shards))
    folders = [
        str(folder.resolve())
        for folder in (options.videos, options.features)
        if folder is not None
    ]
    with open_writer(
        options.folder,
        model,
        source=_absolute(options.model),
        checkpoint=_absolute_checkpoint(options.checkpoint),
        window_s=options.window,
        stride_s=options.stride,
        index_type=options.index_type,
        folders=folders,
    ) as writer:
        new = [name for name in videos if name not in writer]
        logger.info(
            "%s: has %d videos; %d of %d are new",
            options.folder,
            writer.num_videos,
            len(new),
            len(videos),
        )
        names = progress(new, len(new), "videos embedded", logger)
        features = read_features(model, videos, names, options.skip_broken)
        writer.add(features, options.batch_size)
        settings = writer.finish()
    logger.info(
        "%s: %d videos, %d windows, type %s",
        options.folder,
        settings.num_videos,
        settings.num_windows,
        settings.index_type,
    )


def _find(options: Options) -> Mapping[str, Any]:
    """Returns the videos by name: paths, or features in shards.

    Raises:
        LaunchError: not exactly one source is given.
        DataError: it holds no videos.
    """
    sources = (options.videos, options.features, options.shards)
    if sum(source is not None for source in sources) != 1:
        raise LaunchError(
            "give exactly one of `--videos`, `--features` and `--shards`."
        )
    return ShardVideos(options.shards) if options.shards else find_videos(options)


def _absolute(source: str) -> str:
    """Returns the absolute path of a file or folder, and other names unchanged."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _absolute_checkpoint(checkpoint: str) -> str:
    """Returns the absolute path of a checkpoint, and a mere file name unchanged.

    A file name belongs to the folder of the model, also if there is such a file in this folder.
    """
    has_folder = Path(checkpoint).name != checkpoint
    return _absolute(checkpoint) if has_folder else checkpoint


main = Command(index, options=Options, interrupt_message=CONTINUE)


if __name__ == "__main__":
    sys.exit(main())
