"""The plan of an epoch as a file: the videos of each batch, and a fingerprint of what decided them.

A plan file is used only if its fingerprint is the expected one, never because it exists.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write, read_json, remove_leftovers

FORMAT = 1
HARDNESS_LOG = "hardness.jsonl"
"""A file next to the plans with one JSON line per plan: how similar the videos of a batch are."""


@dataclass(frozen=True)
class Plan:
    """The batches of one epoch."""

    epoch: int
    fingerprint: str
    num_videos: int
    batches: tuple[tuple[str, ...], ...]
    """Video ids, different within a batch."""
    hardness: dict[str, float] | None = field(default=None, compare=False)
    """As `plan_hardness` measures it; None for a plan that was read from a file."""

    @staticmethod
    def path(folder: str | Path, epoch: int) -> Path:
        """Returns the path of the plan of `epoch`."""
        return Path(folder) / f"plan_e{epoch}.json"

    def save(self, folder: str | Path) -> Path:
        """Writes `plan_e<epoch>.json` and logs its hardness; returns its path."""
        path = self.path(folder, self.epoch)
        value = {
            "format": FORMAT,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "num_videos": self.num_videos,
            "checksum": _hash(self.batches),
            "batches": self.batches,
        }
        remove_leftovers(path.parent, re.escape(path.name))
        with atomic_write(path) as file:
            file.write(_compact(value) + "\n")
        if self.hardness is not None:
            known = {name: value for name, value in self.hardness.items() if math.isfinite(value)}
            with open(path.parent / HARDNESS_LOG, "a", encoding="utf-8") as log:
                log.write(_compact({"epoch": self.epoch, **known}) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path, epoch: int, fingerprint: str) -> Plan:
        """Reads the plan of `epoch`.

        Args:
            fingerprint: the expected one. It covers the training list, too.

        Raises:
            DataError: the file is missing, was made from something else, or was changed.
        """
        path = cls.path(folder, epoch)
        value = read_json(path)
        expected = {"format": FORMAT, "epoch": epoch, "fingerprint": fingerprint}
        is_whole = isinstance(value, dict) and value.get("checksum") == _hash(value.get("batches"))
        if not is_whole or any(value.get(key) != wanted for key, wanted in expected.items()):
            raise DataError(
                f"{path}: must be the plan of epoch {epoch} with the fingerprint {fingerprint}, as "
                "it was written, but was made from something else or changed; the epoch is planned "
                "again."
            )
        batches = tuple(tuple(batch) for batch in value["batches"])
        return cls(epoch, fingerprint, value["num_videos"], batches)


def ids_fingerprint(ids: Iterable[str]) -> str:
    """Returns a SHA-256 (hex) of the training list, in order."""
    listed = hashlib.sha256()
    for name in ids:
        listed.update(_compact(name).encode() + b"\n")
    return listed.hexdigest()


def plan_fingerprint(*, ids: str, weights: str, **settings: Any) -> str:
    """Returns a SHA-256 (hex) of everything that a plan depends on.

    Args:
        ids: `ids_fingerprint` of the training list.
        weights: identifies the weights that embedded the videos.
        settings: epoch, and settings of the batches, the index and the sampling; plain JSON values.
    """
    return _hash({"format": FORMAT, "ids": ids, "weights": weights, "settings": settings})


def _hash(value: Any) -> str:
    return hashlib.sha256(_compact(value).encode()).hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
