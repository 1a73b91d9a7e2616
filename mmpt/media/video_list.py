"""The videos to extract and their feature files, from folders, lists and CSV files.

An id is a file's name without its last extension (or the CSV's `id`). When two videos have the same
id the later one replaces the earlier, as in the original, and the loss is reported. Order: sources
as given; in a folder its own files by name, then those of its sub-folders (one level), by name;
hidden files and files that are no videos are left out. In a list or CSV an id that cannot name a
file is an error; in a folder that video is left out, with the reason.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmpt.errors import DataError
from mmpt.utils.io import read_lines
from mmpt.utils.validation import NotBlank, Row, read_table

_ENDINGS = "3gp avi f4v flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv ts vob webm wmv"
VIDEO_SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split())
_MAX_NAME_BYTES = 236  # file systems take 255, of which the name of a temporary file needs 18
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
    """The jobs of a run, in order, and what was left out of it."""

    jobs: list[VideoJob] = field(default_factory=list)
    duplicates: dict[str, list[str]] = field(default_factory=dict)
    """By id: the videos that another one of the same id replaced."""
    misnamed: dict[str, str] = field(default_factory=dict)
    """By path: why the name of a video in a folder gives no id."""


def find_videos(sources: Sequence[str | Path], feature_dir: str | Path) -> VideoList:
    """Lists the videos of all `sources`: folders, lists (`.txt`, `.lst`: a path per line) and CSV
    files, in any mixture.

    A CSV needs a column `video_path`; `id` and `feature_path` are optional, and a relative
    `feature_path` lies in `feature_dir`. Relative videos are looked up from the current folder,
    then from the list's own.

    Raises:
        DataError: a source is missing, unreadable or has no such column; an id is no good as a
            file's name; no video.
    """
    found = VideoList()
    by_id: dict[str, VideoJob] = {}
    for source in map(Path, sources):
        is_folder = source.is_dir()
        for where, video, video_id, feature in _entries(source):
            if is_folder and video.suffix.lower() not in VIDEO_SUFFIXES:
                continue
            if reason := _problem_of(video_id):
                if is_folder:
                    found.misnamed[str(video)] = f"its name {reason}"
                    continue
                raise DataError(
                    f"{where}: the video id {video_id!r} {reason}, so it cannot name a file. Give "
                    "it another id."
                )
            if replaced := by_id.pop(video_id, None):
                found.duplicates.setdefault(video_id, []).append(str(replaced.video))
            path = Path(feature_dir) / (feature or f"{video_id}.npy")
            by_id[video_id] = VideoJob(video_id, video, path)
    if not by_id:
        first = min(found.misnamed, default=None)
        instead = f" {len(found.misnamed)} must be renamed, such as {first!r}." if first else ""
        raise DataError(
            f"{', '.join(map(str, sources))}: no video there. Known endings: "
            f"{' '.join(sorted(VIDEO_SUFFIXES))}.{instead}"
        )
    owners: dict[Path, str] = {}
    for job in by_id.values():
        # A CSV's `feature_path` can name the same file for two ids.
        if (other := owners.setdefault(job.feature, job.video_id)) != job.video_id:
            raise DataError(
                f"the videos {other} and {job.video_id} have the same `feature_path` {job.feature}."
            )
    found.jobs = list(by_id.values())
    return found


def shard_of(jobs: Sequence[VideoJob], shard: int, num_shards: int) -> Sequence[VideoJob]:
    """Returns part number `shard` (from 0) of contiguous parts of ceil(n / `num_shards`) jobs; the
    last may be empty.
    """
    size = -(-len(jobs) // num_shards)
    return jobs[shard * size : (shard + 1) * size]


def _problem_of(video_id: str) -> str:
    """Says why an id cannot be a file's name and a line of a list; empty when it can."""
    if not video_id or video_id.startswith("."):
        return "is empty or begins with a dot"
    if {"/", "\\"} & set(video_id) or _NOT_IN_IDS & set(map(unicodedata.category, video_id)):
        return "holds a slash, a control character, or bytes that are not UTF-8"
    if video_id != video_id.strip():
        return "begins or ends with a space"
    if len(os.fsencode(video_id)) > _MAX_NAME_BYTES:
        return f"is longer than {_MAX_NAME_BYTES} bytes"
    return ""


class _Row(Row):
    video_path: NotBlank
    id: str = ""
    feature_path: str = ""


def _entries(source: Path) -> Iterator[tuple[str, Path, str, str]]:
    """Yields (place, file, id, feature path or an empty string); of a folder all its files."""
    suffix = source.suffix.lower()
    if not source.exists():
        raise DataError(
            f"{source}: no such folder or file. Name where the videos are with `--vdir`."
        )
    if source.is_dir():
        paths = [*sorted(source.glob("[!.]*")), *sorted(source.glob("[!.]*/[!.]*"))]
        yield from ((str(path), path, path.stem, "") for path in paths if not path.is_dir())
    elif suffix in (".txt", ".lst"):
        for number, line in enumerate(read_lines(source), start=1):
            if line.strip():
                video = _locate(line.strip(), source)
                yield f"{source}, line {number}", video, video.stem, ""
    elif suffix == ".csv":
        for row in read_table(source, _Row):
            where, feature = f"{source}, line {row.line}", row.feature_path
            if feature and (not feature.endswith(".npy") or ".." in Path(feature).parts):
                raise DataError(
                    f"{where}: `feature_path` must end in .npy and not hold `..`, but is "
                    f"{feature!r}."
                )
            video = _locate(row.video_path, source)
            yield where, video, row.id or Path(feature or video).stem, feature
    elif suffix in VIDEO_SUFFIXES:
        yield str(source), source, source.stem, ""
    else:
        raise DataError(f"{source}: must be a folder, a video, a list (.txt, .lst) or a .csv file.")


def _locate(name: str, source: Path) -> Path:
    video, relative = Path(name), source.parent / name
    return relative if not video.exists() and relative.exists() else video
