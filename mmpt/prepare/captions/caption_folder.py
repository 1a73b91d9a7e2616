"""Reads a folder with a caption file per video, such as the JSON files of WhisperX, as a corpus."""

from collections.abc import Iterator
from pathlib import Path

from mmpt.errors import DataError
from mmpt.prepare.captions.caption_list import CaptionList
from mmpt.prepare.captions.language import parse_tag
from mmpt.prepare.captions.reader import CAPTION_SUFFIXES, read_captions
from mmpt.prepare.user_data.videos import MEDIA_SUFFIXES
from mmpt.utils.io import reading
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)


def find_caption_files(folder: Path) -> dict[str, Path]:
    """Returns {video id: caption file} of a folder and its sub-folders, one level, sorted.

    The id is the file's name without its suffix, and without a language or the suffix of a video
    before it: `tea.json`, `tea.en.vtt` and `tea.mp4.srt` belong to `tea`. Hidden files are left
    out.

    Raises:
        DataError: there is no caption file, or several of them belong to one video.
    """
    files: dict[str, Path] = {}
    with reading(folder):
        paths = sorted([*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")])
    for path in paths:
        if path.suffix.lower() not in CAPTION_SUFFIXES or not path.is_file():
            continue
        video_id = _video_id(path.stem)
        first = files.setdefault(video_id, path)
        if first != path:
            raise DataError(
                f"{folder}: a video must have one caption file, but {video_id} has {first} and "
                f"{path}. Move the files that you do not want to another folder."
            )
    if not files:
        suffixes = ", ".join(CAPTION_SUFFIXES)
        raise DataError(
            f"{folder}: must contain caption files ({suffixes}), but contains none. Correct the "
            "path."
        )
    return files


def _video_id(stem: str) -> str:
    """Returns the id of the video whose caption file has this name, without its suffix."""
    # Two parts first: `a.en` is a tag.
    for num_parts in (2, 1):
        video_id, *parts = stem.rsplit(".", num_parts)
        tag = ".".join(parts)
        is_tag = f".{tag}".lower() in MEDIA_SUFFIXES or parse_tag(tag) is not None
        if video_id and len(parts) == num_parts and is_tag:
            return video_id
    return stem


def iter_caption_files(folder: Path) -> Iterator[tuple[str, CaptionList]]:
    """Yields (id, captions) of every caption file of a folder, and logs what was repaired.

    Raises:
        DataError: a file is broken; or as for `find_caption_files`.
    """
    files = find_caption_files(folder)
    what = "caption files read"
    for video_id, path in progress(files.items(), len(files), what, logger):
        captions, notes = read_captions(path)
        if notes:
            logger.warning("%s: %s", path, "; ".join(notes))
        yield video_id, captions
