"""The files of the videos of an index. Only these are shown and served."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from mmpt.errors import DataError
from mmpt.media.video_list import VIDEO_SUFFIXES, find_videos

ROUTE = "videos"
"""First part of the address of a video."""
_FEATURES = (".npy",)


class VideoFiles:
    """Finds the files of the videos of an index by name.

    The name of a video is the path of its file in one of the folders, without the suffix. If the
    index was made from features or shards, the name may lack the sub-folder, because `mmpt extract`
    leaves it out, or end in the suffix of the video, as in `<name>.mp4.npy`.

    Args:
        names: the videos of the index. No other file is found.
        folders: where to look, in this order.
    """

    def __init__(self, names: Iterable[str], folders: Sequence[str | Path]):
        self.names = dict.fromkeys(names)
        self._folders = [Path(folder) for folder in folders]
        self._extracted: dict[Path, dict[str, Path]] = {}

    @property
    def has_folders(self) -> bool:
        """False if no file can be found, for example because the index was built from shards."""
        return bool(self._folders)

    def video(self, name: str) -> Path | None:
        """Returns the video file of a video, or None if there is none."""
        if not self._is_allowed(name):
            return None
        names = [name]
        path = PurePosixPath(name)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            names.append(str(path.with_suffix("")))
        suffixes = sorted(VIDEO_SUFFIXES)
        for folder in self._folders:
            for each in names:
                found = _find(folder, each, suffixes)
                found = found or self._videos_to_extract(folder).get(each)
                if found is not None:
                    return found
        return None

    def features(self, name: str) -> Path | None:
        """Returns the file of a video's features, or None if there is none."""
        if not self._is_allowed(name):
            return None
        found = (_find(folder, name, _FEATURES) for folder in self._folders)
        return next(filter(None, found), None)

    def _is_allowed(self, name: str) -> bool:
        """Returns whether the file of this name may be shown."""
        # An index from someone else may contain any names. A name must not lead out of the folders.
        parts = PurePosixPath(name)
        is_inside = not parts.is_absolute() and ".." not in parts.parts
        return name in self.names and is_inside

    def _videos_to_extract(self, folder: Path) -> dict[str, Path]:
        """Returns the videos by id that `mmpt extract` finds in a folder. It is read once."""
        if folder not in self._extracted:
            try:
                jobs = find_videos([folder], "").jobs
            except DataError:  # the folder has no videos, or is missing
                jobs = []
            self._extracted[folder] = {job.video_id: job.video for job in jobs}
        return self._extracted[folder]


def _find(folder: Path, name: str, suffixes: Collection[str]) -> Path | None:
    """Returns the file in a folder with this name and one of the suffixes, if there is one."""
    for suffix in suffixes:
        for ending in (suffix, suffix.upper()):
            path = folder / f"{name}{ending}"
            if path.is_file():
                return path
    return None


def address(name: str, start_s: float = 0) -> str:
    """Returns the address of a video, relative to the page. Playback begins at `start_s`."""
    return f"{ROUTE}/{quote(name)}#t={start_s:g}"
