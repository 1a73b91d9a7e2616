"""The shards that packing makes: their files and notes, and the files that a killed run left.

The note of shard k of split s is `<target>/.packing/<s>_<k>.json`. It holds the fingerprint of its
inputs, the sizes of its files, the ids that got a row, and why the others did not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.shards.feature_reader import file_state
from mmpt.shards.layout import read_shard_meta, video_stem
from mmpt.utils.artefact import Artefact, fingerprint
from mmpt.utils.io import remove_leftovers

NOTES = ".packing"
FORMAT = 1
DTYPE = np.dtype(np.float16)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What one shard is made of, and where."""

    features: Path
    target: Path
    split: Split
    number: int
    ids: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Stem of the shard's two files."""
        return video_stem(self.target, self.split, self.number)

    @property
    def artefact(self) -> Artefact:
        """The shard's two files and its note."""
        files = (Path(f"{self.stem}_data.npy"), Path(f"{self.stem}_starts.npy"))
        return Artefact(_note_path(self.target, self.split, self.number), files)

    def fingerprint(self) -> str:
        """Returns a hash of the ids, and of size and time of change of every feature file."""
        inputs = [(video_id, *file_state(self.features, video_id)) for video_id in self.ids]
        return fingerprint(FORMAT, FEATURE_DIM, DTYPE.str, inputs)


def _note_path(target: Path, split: Split, number: int) -> Path:
    return target / NOTES / f"{split.shard_name}_{number}.json"


def meta_shards(target: Path, split: Split) -> list[list[str]] | None:
    """Return what our own meta file says, None when there is none of ours."""
    if not (target / f"{split.shard_name}_meta.json").is_file():
        return None
    try:
        return list(read_shard_meta(target, split).values())
    except DataError:
        return None


def remove_partial(target: Path, split: Split) -> None:
    """Remove temporary files of packings that were killed; the lock is held, so nobody is writing
    them.
    """
    name = re.escape(split.shard_name)
    for folder in (target, target / NOTES):
        remove_leftovers(
            folder, rf"{name}_(\d+_(data|starts)\.npy|\d+\.json|(meta|not_packed)\.json)"
        )


def remove_surplus(target: Path, split: Split, num_shards: int) -> None:
    """Remove our shards behind the last one, left by a packing with smaller shards or of a longer
    list.
    """
    for path in (target / NOTES).glob(f"{split.shard_name}_*.json"):
        number = path.stem.rpartition("_")[2]
        if number.isdigit() and int(number) >= num_shards:
            path.unlink()
            for part in ("data", "starts"):
                Path(f"{video_stem(target, split, int(number))}_{part}.npy").unlink(missing_ok=True)
