"""The files of the videos of an index. Only these are shown and served."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from mmpt.media.video_list import VIDEO_SUFFIXES

ROUTE = "videos"
"""First part of the address of a video."""
_FEATURES = (".npy",)


class VideoFiles:
    """Finds the files of the videos of an index by name.

    The name of a video is the path of its file in one of the folders, without the suffix.

    Args:
        names: the videos of the index. No other file is found.
        folders: where to look, in this order.
    """

    def __init__(self, names: Iterable[str], folders: Sequence[str | Path]):
        self.names = dict.fromkeys(names)
        self._folders = [Path(folder) for folder in folders]

    @property
    def has_folders(self) -> bool:
        """False if no file can be found, for example because the index was built from shards."""
        return bool(self._folders)

    def video(self, name: str) -> Path | None:
        """Returns the video file of a video, or None if there is none."""
        return self._find(name, sorted(VIDEO_SUFFIXES))

    def features(self, name: str) -> Path | None:
        """Returns the file of a video's features, or None if there is none."""
        return self._find(name, _FEATURES)

    def _find(self, name: str, suffixes: Collection[str]) -> Path | None:
        # An index from someone else may contain any names. A name must not lead out of the folders.
        parts = PurePosixPath(name)
        is_inside = not parts.is_absolute() and ".." not in parts.parts
        if name not in self.names or not is_inside:
            return None
        for folder in self._folders:
            for suffix in suffixes:
                for ending in (suffix, suffix.upper()):
                    path = folder / f"{name}{ending}"
                    if path.is_file():
                        return path
        return None


def address(name: str, start_s: float = 0) -> str:
    """Returns the address of a video, relative to the page. Playback begins at `start_s`."""
    return f"{ROUTE}/{quote(name)}#t={start_s:g}"
