"""A project of a user with eight videos or features, and the results of `mmpt prepare`."""

import json
import shutil
from pathlib import Path

from tests.support.paths import ROOT

VTT = (
    "WEBVTT\n\n00:00:00.500 --> 00:00:02.000\nchop the {0}\n\n"
    "00:00:02.000 --> 00:00:05.500\nput the {0} in the pan\n"
)
NAMES = [f"clip {number}.v{number}" for number in range(8)]
THINGS = ["onion", "carrot"] * 4  # the topic of each video


def make_project(folder: Path) -> Path:
    """Writes the recipes, and captions of the first seven videos."""
    shutil.copytree(ROOT / "projects", folder / "projects")
    (folder / "captions/more").mkdir(parents=True)
    for name, thing in zip(NAMES[:7], THINGS, strict=False):
        place = "more/" if name == NAMES[3] else ""
        write_captions(folder, f"{place}{name}.en.vtt", VTT.format(thing))
    return folder


def write_captions(folder: Path, name: str, text: str) -> None:
    """Writes a caption file to the folder of captions."""
    path = folder / "captions" / name
    path.write_text(text)


def report_of(folder: Path) -> dict:
    path = folder / "data/mine/report.json"
    return json.loads(path.read_text())


def ids_of(folder: Path, split: str) -> list[str]:
    path = folder / f"data/mine/{split}.lst"
    return path.read_text().splitlines()


def all_ids(folder: Path) -> list[str]:
    """Returns the ids of both lists, sorted."""
    ids = ids_of(folder, "train") + ids_of(folder, "val")
    return sorted(ids)


def contents(folder: Path) -> dict[Path, bytes]:
    """Returns the content of every file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files}
