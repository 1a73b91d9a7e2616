"""Finds the videos to extract in folders, lists and CSV files, and names their feature files.

A video's id is its file name without the last extension, or the `id` column of a CSV file. If two
videos have the same id, the later one replaces the earlier one, as in the original code, and the
replaced video is reported.

Videos are listed in the order of the sources. A folder gives its own files by name, then the files
of its sub-folders (one level) by name. Hidden files and files that are not videos are skipped. An
id that cannot be a file name is an error in a list or CSV file. In a folder, such a video is left
out, and the reason is reported.
"""

import math
import os
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmpt.errors import DataError
from mmpt.utils.io import read_lines
from mmpt.utils.validation import NotBlank, Row, read_table

VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".avi",
        ".f4v",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
    ]
)
# File systems allow 255, and the name of a temporary file needs 18 more.
_MAX_NAME_BYTES = 236
# Unicode categories: control characters, bytes that are not UTF-8, line and paragraph separators.
_NOT_IN_IDS = {"Cc", "Cs", "Zl", "Zp"}


@dataclass(frozen=True)
class VideoJob:
    """One video to extract."""

    video_id: str
    video: Path
    feature: Path
    """The `.npy` file to write."""


@dataclass
class VideoList:
    """The videos of a run, in order, and the videos that were left out."""

    jobs: list[VideoJob] = field(default_factory=list)
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    """Id -> paths of the videos that a later one with the same id replaced."""
    misnamed: dict[str, str] = field(default_factory=dict)
    """Path of a video in a folder -> the reason why its name cannot be an id."""


class _Entry(NamedTuple):
    """One entry of a source: a video in a folder, or a line of a list or CSV file."""

    place: str
    """Where the entry is, for messages."""
    video: Path
    video_id: str
    feature: str = ""
    """Path of the feature file; empty if the source does not name it."""


def find_videos(sources: Sequence[str | Path], feature_dir: str | Path) -> VideoList:
    """Lists the videos of all `sources`.

    Args:
        sources: folders, single videos, lists (`.txt`, `.lst`: one path per line) and CSV files. A
            CSV file needs the column `video_path`; `id` and `feature_path` are optional. Relative
            videos are looked up in the current folder, then in the folder of the list.
        feature_dir: the folder of the feature files. A relative `feature_path` is a path inside it.
    Raises:
        DataError: a source is missing, unreadable or lacks the column; an id cannot be a file name;
            or there is no video.
    """
    found = VideoList()
    by_id: dict[str, VideoJob] = {}
    for source in map(Path, sources):
        is_folder = source.is_dir()
        for entry in _read_source(source):
            video = entry.video
            video_id = entry.video_id
            if problem := id_problem(video_id):
                if is_folder:
                    found.misnamed[str(video)] = f"its name {problem}"
                    continue
                raise DataError(
                    f"{entry.place}: the video id {video_id!r} {problem}, so it cannot name a "
                    "file. Give it another id."
                )
            # A later video with the same id takes the place of the earlier one.
            if replaced := by_id.pop(video_id, None):
                duplicates = found.duplicates.setdefault(video_id, [])
                duplicates.append(str(replaced.video))
            feature_name = entry.feature or f"{video_id}.npy"
            feature = Path(feature_dir) / feature_name
            by_id[video_id] = VideoJob(video_id, video, feature)
    if not by_id:
        raise _no_video_error(sources, found.misnamed)
    found.jobs = list(by_id.values())
    _check_feature_paths(found.jobs)
    return found


def files_in(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yields the files with these suffixes in a folder and its sub-folders, except hidden ones.

    Some systems add hidden files that are not videos, such as `._a.mp4` on macOS.
    """
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        is_hidden = any(part.startswith(".") for part in parts)
        if not is_hidden and path.suffix.lower() in suffixes and path.is_file():
            yield path


def _no_video_error(
    sources: Sequence[str | Path], misnamed: Collection[str]
) -> DataError:
    """Returns the error for sources without a usable video."""
    named = ", ".join(map(str, sources))
    endings = " ".join(sorted(VIDEO_SUFFIXES))
    message = f"{named}: no video there. Known endings: {endings}."
    if misnamed:
        message += f" {len(misnamed)} must be renamed, such as {min(misnamed)!r}."
    return DataError(message)


def shard_of(
    jobs: Sequence[VideoJob], shard: int, num_shards: int
) -> Sequence[VideoJob]:
    """Returns one of `num_shards` contiguous parts of the jobs.

    Each part has ceil(n / `num_shards`) jobs. The last parts may have fewer or none.

    Args:
        shard: the number of the part, from 0.
    """
    size = math.ceil(len(jobs) / num_shards)
    begin = shard * size
    return jobs[begin : begin + size]


def _check_feature_paths(jobs: Sequence[VideoJob]) -> None:
    """Raises DataError if two videos have the same feature file. A CSV file may cause this."""
    owners: dict[Path, str] = {}
    for job in jobs:
        other = owners.setdefault(job.feature, job.video_id)
        if other != job.video_id:
            raise DataError(
                f"the videos {other} and {job.video_id} have the same `feature_path` {job.feature}."
            )


def id_problem(video_id: str) -> str:
    """Returns why an id cannot be a file name and a line of a list; empty if it can."""
    if not video_id or video_id.startswith("."):
        return "is empty or begins with a dot"
    categories = set(map(unicodedata.category, video_id))
    has_slash = "/" in video_id or "\\" in video_id
    if has_slash or categories & _NOT_IN_IDS:
        return "holds a slash, a control character, or bytes that are not UTF-8"
    if video_id != video_id.strip():
        return "begins or ends with a space"
    if len(os.fsencode(video_id)) > _MAX_NAME_BYTES:
        return f"is longer than {_MAX_NAME_BYTES} bytes"
    return ""


class _Row(Row):
    """A row of a CSV file of videos."""

    video_path: NotBlank
    id: str = ""
    feature_path: str = ""


def _read_source(source: Path) -> Iterator[_Entry]:
    """Yields the entries of a source. For a folder, these are its videos."""
    suffix = source.suffix.lower()
    if not source.exists():
        raise DataError(
            f"{source}: no such folder or file. Name where the videos are with `--vdir`."
        )
    if source.is_dir():
        own = sorted(source.glob("[!.]*"))
        nested = sorted(source.glob("[!.]*/[!.]*"))
        for path in own + nested:
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir():
                yield _Entry(str(path), path, path.stem)
    elif suffix in (".txt", ".lst"):
        for number, line in enumerate(read_lines(source), start=1):
            name = line.strip()
            if name:
                video = _find_file(name, source)
                yield _Entry(f"{source}, line {number}", video, video.stem)
    elif suffix == ".csv":
        for row in read_table(source, _Row):
            yield _csv_entry(row, source)
    elif suffix in VIDEO_SUFFIXES:
        yield _Entry(str(source), source, source.stem)
    else:
        raise DataError(
            f"{source}: must be a folder, a video, a list (.txt, .lst) or a .csv file."
        )


def _csv_entry(row: _Row, source: Path) -> _Entry:
    """Returns the entry of a row of the CSV file `source`."""
    place = f"{source}, line {row.line}"
    video = _find_file(row.video_path, source)
    video_id = video.stem
    if row.feature_path:
        feature = Path(row.feature_path)
        if not row.feature_path.endswith(".npy") or ".." in feature.parts:
            raise DataError(
                f"{place}: `feature_path` must end in .npy and not hold `..`, but is "
                f"{row.feature_path!r}."
            )
        video_id = feature.stem
    return _Entry(place, video, row.id or video_id, row.feature_path)


def _find_file(name: str, source: Path) -> Path:
    """Returns the path of a file in the current folder, or else in the folder of `source`."""
    path = Path(name)
    in_source_folder = source.parent / name
    if not path.exists() and in_source_folder.exists():
        return in_source_folder
    return path
