"""The plan of an epoch: the videos of each batch, and fingerprints of what decided them.

A plan holds positions in the training list. Its file also has the video ids, for people who read
it. A plan file is used only if its fingerprints are the expected ones, never because it exists.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.errors import DataError
from mmpt.utils.io import atomic_write, read_json, remove_leftovers

FORMAT = 2
"""Version of plan files. Format 1 had ids only; its files are refused, and their epoch is planned
again."""
HARDNESS_LOG = "hardness.jsonl"
"""A file next to the plans with one JSON line per plan: how similar the videos of a batch are."""


@dataclass(frozen=True)
class Plan:
    """The batches of one epoch."""

    epoch: int
    fingerprint: str
    """`plan_fingerprint` of everything that decided the batches."""
    list_fingerprint: str
    """`ids_fingerprint` of the training list."""
    num_videos: int
    """Length of the training list."""
    batches: tuple[tuple[int, ...], ...]
    """Positions in the training list. The positions of a batch are different."""
    hardness: dict[str, float] | None = field(default=None, compare=False)
    """Result of `plan_hardness`. None for a plan that was read from a file."""

    @staticmethod
    def path(folder: str | Path, epoch: int) -> Path:
        """Returns the path of the plan of `epoch`."""
        return Path(folder) / f"plan_e{epoch}.json"

    def save(self, folder: str | Path, ids: Sequence[str]) -> Path:
        """Writes `plan_e<epoch>.json`, logs the hardness, and returns the path.

        Args:
            ids: the training list.
        """
        path = self.path(folder, self.epoch)
        named = [[ids[position] for position in batch] for batch in self.batches]
        value = {
            "format": FORMAT,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "list_fingerprint": self.list_fingerprint,
            "num_videos": self.num_videos,
            "checksum": _hash([named, self.batches]),
            "batches": named,
            "positions": self.batches,
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
    def load(cls, folder: str | Path, epoch: int, fingerprint: str, list_fingerprint: str) -> Plan:
        """Reads the plan of `epoch`.

        Args:
            fingerprint: the expected one.
            list_fingerprint: that of the present training list.

        Raises:
            DataError: the file is missing, was made from something else, or was changed.
        """
        path = cls.path(folder, epoch)
        value = read_json(path)
        expected = {
            "format": FORMAT,
            "epoch": epoch,
            "fingerprint": fingerprint,
            "list_fingerprint": list_fingerprint,
        }
        is_whole = isinstance(value, dict) and value.get("checksum") == _hash(
            [value.get("batches"), value.get("positions")]
        )
        if not is_whole or any(value.get(key) != wanted for key, wanted in expected.items()):
            raise DataError(
                f"{path}: must be the plan of epoch {epoch} with the fingerprint {fingerprint}, as "
                "it was written, but was made from something else or changed; the epoch is planned "
                "again."
            )
        batches = tuple(tuple(batch) for batch in value["positions"])
        return cls(epoch, fingerprint, list_fingerprint, value["num_videos"], batches)


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
