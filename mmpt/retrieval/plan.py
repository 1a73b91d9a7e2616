"""The plan of an epoch as a file: which videos make a batch, and a fingerprint of all that decided it.

A file is believed because its fingerprint is the expected one, never because it exists.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write, read_json, remove_leftovers

FORMAT = 1
HARDNESS_LOG = "hardness.jsonl"
"""Beside the plans: a JSON line for every plan that was made, with how similar the videos of its batches are."""


class PlanMismatchError(DataError):
    """A plan file that is sound, but was made for other settings, another list or other weights."""


@dataclass(frozen=True)
class Hardness:
    """How similar the videos of a batch are."""

    mean_cosine: float
    """Mean cosine of two different videos of one batch."""
    random_mean_cosine: float
    """The same for batches of the same sizes drawn at random."""
    coverage: float
    """Share of all videos that occur in at least one batch."""


@dataclass(frozen=True)
class Plan:
    """The batches of one epoch."""

    epoch: int
    fingerprint: str
    num_videos: int
    batches: tuple[tuple[str, ...], ...]
    """Video ids, different within a batch."""
    hardness: Hardness | None = field(default=None, compare=False)
    """Known when the plan has just been made."""

    @staticmethod
    def path(folder: str | Path, epoch: int) -> Path:
        """Return where the plan of `epoch` lies."""
        return Path(folder) / f"plan_e{epoch}.json"

    def save(self, folder: str | Path) -> Path:
        """Write `plan_e<epoch>.json`, under a temporary name first, and note its hardness; return its path."""
        path = self.path(folder, self.epoch)
        value = {
            "format": FORMAT,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "num_videos": self.num_videos,
            "checksum": _checksum(self.batches),
            "batches": self.batches,
        }
        remove_leftovers(path.parent, re.escape(path.name))
        with atomic_write(path) as file:
            file.write(_compact(value) + "\n")
        if self.hardness is not None:
            known = {name: value for name, value in asdict(self.hardness).items() if math.isfinite(value)}
            with open(path.parent / HARDNESS_LOG, "a", encoding="utf-8") as log:
                log.write(_compact({"epoch": self.epoch, **known}) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path, epoch: int, *, fingerprint: str, ids: Iterable[str]) -> Plan:
        """Read the plan of `epoch`.

        Args:
            fingerprint: the one it must carry.
            ids: the training list it must have been made from.
        Raises:
            PlanMismatchError: it was made by something else; plan again.
            DataError: missing, of another format, or changed since it was written.
        """
        path = cls.path(folder, epoch)
        value = read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise DataError(f"{path}: not a plan of format {FORMAT}; delete it, it is made again.")
        known = set(ids)
        expected = {"epoch": epoch, "fingerprint": fingerprint, "num_videos": len(known)}
        for key, wanted in expected.items():
            if value.get(key) != wanted:
                raise PlanMismatchError(f"{path}: its `{key}` should be {wanted}, but is {value.get(key)}; plan again.")
        batches = _read_batches(path, value)
        unknown = {name for batch in batches for name in batch} - known
        if unknown:
            raise PlanMismatchError(
                f"{path}: {len(unknown)} of its videos are not in the training list (one is "
                f"{min(unknown)}); plan again."
            )
        return cls(epoch, fingerprint, len(known), batches)


def ids_fingerprint(ids: Iterable[str]) -> str:
    """Return a SHA-256 (hex) of the training list, in order."""
    listed = hashlib.sha256()
    for name in ids:
        listed.update(_compact(name).encode() + b"\n")
    return listed.hexdigest()


def plan_fingerprint(*, ids: str, weights: str, **settings: Any) -> str:
    """Return a SHA-256 (hex) of everything a plan depends on.

    Args:
        ids: `ids_fingerprint` of the training list.
        weights: what identifies the weights that embedded the videos.
        settings: epoch, videos per batch, clips, candidates, index and sampling settings: plain JSON values.
    """
    whole = {"format": FORMAT, "ids": ids, "weights": weights, "settings": settings}
    return hashlib.sha256(_compact(whole).encode()).hexdigest()


def _read_batches(path: Path, value: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    found = value.get("batches")
    if not isinstance(found, list) or not found or value.get("checksum") != _checksum(found):
        raise DataError(f"{path}: its batches are not the ones that were written; delete it, it is made again.")
    return tuple(tuple(batch) for batch in found)


def _checksum(batches: Any) -> str:
    return hashlib.sha256(_compact(batches).encode()).hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
