"""The feature files of a folder, and what an extraction keeps next to them.

Several processes may fill a folder, each with a part of the videos of its own (`--shard I/N`): a
lock keeps a second process out of a part. A feature file gets its name when it is whole, so a rerun
skips finished videos, whoever made them.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import FEATURE_DIM
from mmpt.errors import DataError
from mmpt.utils.io import load_npy, read_json, read_json_lines, write_json, writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

SETTINGS_FILE = "extract_settings.json"
NOTES_FILE = ".extract_notes.jsonl"
LOCK_FILE = ".extract.lock"


def is_finished(path: Path, dtype: np.dtype[Any]) -> bool:
    """Tells whether `path` is a whole feature file [seconds, 512] of this dtype. Reads its header
    and size only.
    """
    try:
        features = load_npy(path, "", mmap_mode="r")
    except DataError:
        return False
    shape = features.shape
    return features.dtype == dtype and shape[1:] == (FEATURE_DIM,) and shape[0] > 0


@contextmanager
def extracting(folder: Path, part: int = 0, num_parts: int = 1) -> Iterator[None]:
    """Keeps other processes out of one part of the videos of `folder`, which is made if missing.

    Raises:
        DataError: another process extracts this part, or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".extract_{part}_of_{num_parts}.lock"
    refusal = (
        f"{folder}: another process extracts part {part} of {num_parts} of these videos. "
        "Wait for its end, or give each process a part of its own with `--shard I/N`."
    )
    with exclusive(path, "extracting features", refusal):
        yield


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time write the few files that all who fill `folder` share.

    Raises:
        DataError: it cannot be written.
    """
    with writing(folder), exclusive(folder / LOCK_FILE, "writing what all extractions share"):
        yield


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Records what the features of `folder` are made with, or compares with what is recorded there.

    Raises:
        DataError: its features were made in another way, or it cannot be written.
    """
    path = folder / SETTINGS_FILE
    with locked(folder):
        if not path.exists():
            if any(entry.name.endswith(".npy") for entry in os.scandir(folder)):
                logger.warning(
                    "%s: has features of unknown settings; they are kept as they are", folder
                )
            write_json(path, settings)
            return
    old = read_json(path)
    if old != settings:
        known = old if isinstance(old, dict) else {}
        keys = sorted(key for key in {*known, *settings} if known.get(key) != settings.get(key))
        changes = ", ".join(f"{key} {known.get(key)!r} (now {settings.get(key)!r})" for key in keys)
        raise DataError(
            f"{folder}: its features were made with other settings: {changes}. Give another folder "
            f"with `--fdir`, or remove this one's features and {SETTINGS_FILE} to make them again."
        )


def add_notes(folder: Path, video_id: str, notes: list[str]) -> None:
    """Records what was wrong with a video whose features are about to be written to `folder`, or
    that nothing was.

    A rerun skips such a video and must still name it. A line is written in one piece, so a killed
    process leaves a whole one or none.

    Raises:
        DataError: the folder cannot be written.
    """
    line = json.dumps({"id": video_id, "notes": notes}).encode() + b"\n"
    path = folder / NOTES_FILE
    with writing(path), open(path, "ab", buffering=0) as file:
        file.write(line)


def read_notes(folder: Path) -> dict[str, list[str]]:
    """Returns the notes of every video that has some. The last line about a video counts."""
    lines = read_json_lines(folder / NOTES_FILE)
    found = {line["id"]: line["notes"] for line in lines if line.keys() >= {"id", "notes"}}
    return {video_id: notes for video_id, notes in found.items() if notes}
