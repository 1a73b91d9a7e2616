"""What packing knows of earlier runs: a shard's fingerprint, its manifest, and the files that a killed run left.

The manifest of shard k of split s is `<target>/.packing/<s>_<k>.json`: the fingerprint of its inputs, the sizes of its
files, the ids that got a row, and why the others did not.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.batch import FEATURE_DIM, Split
from mmpt.errors import DataError
from mmpt.shards.feature_reader import file_state
from mmpt.shards.layout import read_shard_meta, video_stem
from mmpt.utils.io import read_json, remove_leftovers, write_json

MANIFESTS = ".packing"
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
    def manifest(self) -> Path:
        """Where its fingerprint stands."""
        return _manifest_path(self.target, self.split, self.number)


def _manifest_path(target: Path, split: Split, number: int) -> Path:
    return target / MANIFESTS / f"{split.shard_name}_{number}.json"


def fingerprint(shard: Shard) -> str:
    """Hash what the shard's bytes depend on: format, ids, and size and time of change of every feature file."""
    inputs = [(video_id, *file_state(shard.features, video_id)) for video_id in shard.ids]
    return hashlib.sha256(json.dumps([FORMAT, FEATURE_DIM, DTYPE.str, inputs]).encode()).hexdigest()


def finished(shard: Shard, wanted: str) -> dict[str, Any] | None:
    """Return the shard's manifest if its inputs have the fingerprint `wanted` and its files are whole; else None."""
    try:
        manifest = read_json(shard.manifest)
    except DataError:
        return None
    same = isinstance(manifest, dict) and manifest.get("format") == FORMAT and manifest.get("fingerprint") == wanted
    if not same or manifest["try_again"] or manifest["bytes"] != _file_sizes(shard):
        return None
    return manifest


def _file_sizes(shard: Shard) -> list[int]:
    paths = [Path(f"{shard.stem}_{part}.npy") for part in ("data", "starts")]
    return [path.stat().st_size if path.is_file() else -1 for path in paths]


def write_manifest(shard: Shard, mark: str, ids: list[str], skipped: dict[str, str], seconds: int, again: bool) -> dict:
    """Write and return the manifest of a shard whose files stand; `again`: another attempt may skip less."""
    manifest = {
        "format": FORMAT,
        "fingerprint": mark,
        "bytes": _file_sizes(shard),
        "seconds": seconds,
        "try_again": again,
        "skipped": skipped,
        "ids": ids,
    }
    write_json(shard.manifest, manifest)
    return manifest


def meta_shards(target: Path, split: Split) -> list[list[str]] | None:
    """Return what our own meta file says, None when there is none of ours."""
    if not (target / f"{split.shard_name}_meta.json").is_file():
        return None
    try:
        return list(read_shard_meta(target, split).values())
    except DataError:
        return None


def remove_partial(target: Path, split: Split) -> None:
    """Remove temporary files of packings that were killed; the lock is held, so nobody is writing them."""
    name = re.escape(split.shard_name)
    for folder in (target, target / MANIFESTS):
        remove_leftovers(folder, rf"{name}_(\d+_(data|starts)\.npy|\d+\.json|(meta|not_packed)\.json)")


def remove_surplus(target: Path, split: Split, num_shards: int) -> None:
    """Remove our shards behind the last one, left by a packing with smaller shards or of a longer list."""
    for path in (target / MANIFESTS).glob(f"{split.shard_name}_*.json"):
        number = path.stem.rpartition("_")[2]
        if number.isdigit() and int(number) >= num_shards:
            path.unlink()
            for part in ("data", "starts"):
                Path(f"{video_stem(target, split, int(number))}_{part}.npy").unlink(missing_ok=True)
