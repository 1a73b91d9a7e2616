"""The feature files of a folder, and the files that an extraction keeps next to them.

Several processes may fill a folder, each with its own part of the videos (`--shard I/N`). A lock
keeps a second process out of a part. A feature file gets its name when it is complete, so a rerun
skips finished videos, whichever process wrote them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.errors import DataError
from mmpt.utils.io import load_npy, read_json, read_json_lines, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

SETTINGS_FILE = "extract_settings.json"
NOTES_FILE = ".extract_notes.jsonl"
LOCK_FILE = ".extract.lock"


def is_finished(path: Path, dtype: np.dtype[Any], width: int) -> bool:
    """Returns whether `path` is a complete feature file, [rows, width] of this dtype.

    Only its header and size are read.
    """
    try:
        features = load_npy(path, "", mmap_mode="r")
    except DataError:
        return False
    if features.dtype != dtype:
        return False
    return features.shape[1:] == (width,) and len(features) > 0


@contextmanager
def extracting(folder: Path, part: int = 0, num_parts: int = 1) -> Iterator[None]:
    """Keeps other processes out of one part of the videos during the block.

    Args:
        folder: the folder of the feature files. It is created if it is missing.
        part: number of the part, from 0.
        num_parts: number of parts.
    Raises:
        DataError: another process extracts this part, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".extract_{part}_of_{num_parts}.lock"
    message = (
        f"{folder}: another process extracts part {part} of {num_parts} of these videos. "
        "Wait until it ends, or give each process its own part with `--shard I/N`."
    )
    with exclusive(path, "extracting features", message):
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock on the files that all processes that fill `folder` share.

    Raises:
        DataError: the folder cannot be written.
    """
    path = folder / LOCK_FILE
    with writing(folder), exclusive(path, "writing files that all extractions share"):
        yield


def check_settings(
    folder: Path, settings: dict[str, Any], option: str = "--fdir"
) -> None:
    """Records the settings of the features in `folder`, or compares them with the recorded ones.

    Args:
        folder: the folder of the feature files.
        settings: plain values by name.
        option: the option of the command that names another folder, for the message.
    Raises:
        DataError: the features in `folder` were made with other settings, or it cannot be written.
    """
    path = folder / SETTINGS_FILE
    with locked(folder):
        if not path.exists():
            if any(folder.glob("*.npy")):
                what = "%s: has features of unknown settings; they are kept as they are"
                logger.warning(what, folder)
            write_json(path, settings)
            return
    recorded = read_json(path)
    if recorded == settings:
        return
    if not isinstance(recorded, dict):
        recorded = {}
    changes = []
    for key in sorted({*recorded, *settings}):
        old = recorded.get(key)
        new = settings.get(key)
        if old != new:
            changes.append(f"{key} {old!r} (now {new!r})")
    raise DataError(
        f"{folder}: its features were made with other settings: {', '.join(changes)}. Give "
        f"another folder with `{option}`, or remove this one's features and {SETTINGS_FILE} to "
        "make them again."
    )


def add_notes(folder: Path, video_id: str, notes: list[str]) -> None:
    """Records the problems of a video whose features are about to be written.

    A rerun skips this video but must still report its problems. The line is written by one call, so
    a killed process leaves a complete line or none.

    Args:
        folder: the folder of the feature files.
        video_id: the video.
        notes: its problems; empty if it has none.
    Raises:
        DataError: the folder cannot be written.
    """
    line = json.dumps({"id": video_id, "notes": notes}) + "\n"
    path = folder / NOTES_FILE
    with writing(path), open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def read_notes(folder: Path) -> dict[str, list[str]]:
    """Returns the notes of all videos that have any. The last line about a video counts."""
    notes: dict[str, list[str]] = {}
    for line in read_json_lines(folder / NOTES_FILE):
        if "id" in line and "notes" in line:
            notes[line["id"]] = line["notes"]
    return {video_id: problems for video_id, problems in notes.items() if problems}
