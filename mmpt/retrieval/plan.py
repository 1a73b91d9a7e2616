"""The plan of an epoch: draws the batches from neighbours, and keeps them in a file.

Each batch is a sample of the neighbourhood of one video, its centre. A plan holds positions in the
training list. Its file also has the video ids, for people who read it, and fingerprints of what
decided the batches. A plan file is used only if its fingerprints are the expected ones, never
because it exists.

Legend: N videos, V videos per batch, m = floor(N/V) centres and batches, k neighbours, n videos of
one batch, D hidden size.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmpt.errors import DataError
from mmpt.retrieval.retriever import VectorRetriever
from mmpt.utils.io import atomic_write, read_json, read_json_lines, remove_leftovers
from mmpt.utils.log import get_logger
from mmpt.utils.stopwatch import Stopwatch

logger = get_logger(__name__)

FORMAT = 2
"""Version of plan files. Format 1 had ids only; its files are refused, and their epoch is planned
again."""
HARDNESS_LOG = "hardness.jsonl"
"""A file next to the plans with one JSON line per plan: the epoch, and `Plan.hardness`."""


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
    """Result of `plan_hardness`, and `refresh_s`, the seconds of the refresh before the plan was
    saved, if they were measured. None for a plan that was read from a file."""

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
        named = []
        for batch in self.batches:
            names = [ids[position] for position in batch]
            named.append(names)
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
        # A killed process may have left a temporary file.
        remove_leftovers(path.parent, re.escape(path.name))
        # The hardness comes first. Once the plan exists, a later run uses it, and would not log.
        self._log_hardness(path.parent / HARDNESS_LOG)
        with atomic_write(path) as file:
            file.write(_compact(value) + "\n")
        return path

    def _log_hardness(self, path: Path) -> None:
        """Adds a line with the finite numbers of the hardness to the log.

        Lines that a killed run has left about this and later epochs are removed.
        """
        if self.hardness is None:
            return
        line: dict[str, float] = {"epoch": self.epoch}
        for name, number in self.hardness.items():
            if math.isfinite(number):
                line[name] = number
        rows = [
            row for row in read_json_lines(path) if row.get("epoch", 0) < self.epoch
        ]
        remove_leftovers(path.parent, re.escape(path.name))
        with atomic_write(path) as log:
            log.writelines(_compact(row) + "\n" for row in [*rows, line])

    @classmethod
    def load(
        cls, folder: str | Path, epoch: int, fingerprint: str, list_fingerprint: str
    ) -> Plan:
        """Reads the plan of `epoch`.

        Args:
            fingerprint: the expected fingerprint of the plan.
            list_fingerprint: `ids_fingerprint` of the current training list.

        Raises:
            DataError: the file is missing, was made from something else, or was changed.
        """
        path = cls.path(folder, epoch)
        value = read_json(path)
        if not isinstance(value, dict):
            value = {}
        contents = [value.get("batches"), value.get("positions")]
        expected = {
            "format": FORMAT,
            "epoch": epoch,
            "fingerprint": fingerprint,
            "list_fingerprint": list_fingerprint,
            "checksum": _hash(contents),
        }
        found = {key: value.get(key) for key in expected}
        if found != expected:
            raise DataError(
                f"{path}: not the plan of epoch {epoch} with the fingerprint {fingerprint}: it was "
                "made from other inputs, or was changed. The epoch is planned again."
            )
        batches = tuple(map(tuple, value["positions"]))
        return cls(epoch, fingerprint, list_fingerprint, value["num_videos"], batches)


def refresh_plan(
    vectors_ND: np.ndarray,
    *,
    epoch: int,
    videos_per_batch: int,
    num_cands: int,
    retriever: VectorRetriever,
    fingerprint: str,
    list_fingerprint: str,
    watch: Stopwatch,
) -> Plan:
    """Plans the batches of an epoch from the vectors of all videos.

    Args:
        vectors_ND: float16 or float32, finite (the pool checks this), in the order of the training
            list.
        epoch: e. All draws come from a generator seeded with e * e.
        num_cands: neighbours searched for each centre. The centre itself is one of them.
        retriever: an empty index. It is filled, trained and searched here.
        fingerprint: `plan_fingerprint` of the settings, the list and the weights.
        list_fingerprint: `ids_fingerprint` of the list.
        watch: measures the time of the parts `index`, `search` and `plan`.
    """
    assert len(retriever) == 0, "refresh_plan fills an empty index"
    assert num_cands >= videos_per_batch, "checked by the config"
    num_videos = len(vectors_ND)
    # The order of the draws is part of the result: first all centres, then each batch in turn.
    seed = epoch * epoch
    rng = random.Random(seed)
    num_batches = num_videos // videos_per_batch
    centres = rng.sample(range(num_videos), num_batches)
    with watch.timed("index"):
        retriever.add(vectors_ND)
        retriever.finalize_training()
    with watch.timed("search"):
        queries_mD = vectors_ND[centres]
        neighbours = retriever.search(queries_mD, num_cands)
    with watch.timed("plan"):
        batches = plan_batches(neighbours.positions_mk, centres, videos_per_batch, rng)
        hardness = plan_hardness(vectors_ND, batches, random.Random(seed))
    short = [batch for batch in batches if len(batch) < videos_per_batch]
    logger.info(
        f"epoch {epoch}: {num_batches} batches ({len(short)} short), cosine within a batch "
        f"{hardness['mean_cosine']:.3f} (at random {hardness['random_mean_cosine']:.3f}), "
        f"{hardness['coverage']:.1%} of {num_videos} videos covered"
    )
    planned = tuple(map(tuple, batches))
    return Plan(epoch, fingerprint, list_fingerprint, num_videos, planned, hardness)


def plan_batches(
    neighbours_mk: np.ndarray,
    centres: Sequence[int],
    videos_per_batch: int,
    rng: random.Random,
) -> list[list[int]]:
    """Returns one batch of different positions for each centre.

    The candidates are the centre and its neighbours, nearest first. If there are more than V of
    them, V are drawn at random. The centre may then be left out, as in the release. If there are
    fewer, the batch is short.

    Args:
        neighbours_mk: int64, positions, nearest first, -1 where fewer were found.
        centres: m positions.
        videos_per_batch: V.
        rng: draws the sample of every batch that has more than V candidates.
    """
    batches = []
    for centre, neighbours in zip(centres, neighbours_mk.tolist(), strict=True):
        batch = [centre]
        for position in neighbours:
            if position not in (centre, -1):
                batch.append(position)
        if len(batch) > videos_per_batch:
            batch = rng.sample(batch, videos_per_batch)
        batches.append(batch)
    return batches


def plan_hardness(
    vectors_ND: np.ndarray,
    batches: Sequence[Sequence[int]],
    rng: random.Random,
    max_judged: int = 2000,
) -> dict[str, float]:
    """Measures how similar the videos of a batch are.

    Args:
        max_judged: largest number of batches whose cosines are measured.
    Returns:
        mean_cosine: mean cosine of two different videos of one batch. NaN if no batch has two.
        random_mean_cosine: the same for random batches of the same sizes.
        coverage: share of all videos that occur in at least one batch.
    """
    num_videos = len(vectors_ND)
    judged = list(batches)
    if len(judged) > max_judged:
        judged = rng.sample(judged, max_judged)
    cosines = []
    random_cosines = []
    for batch in judged:
        if len(batch) > 1:
            # A random batch of the same size, to compare with.
            at_random = rng.sample(range(num_videos), len(batch))
            cosines.append(_mean_cosine(vectors_ND, batch))
            random_cosines.append(_mean_cosine(vectors_ND, at_random))
    mean_cosine = random_mean_cosine = math.nan
    if cosines:
        mean_cosine = float(np.mean(cosines))
        random_mean_cosine = float(np.mean(random_cosines))
    covered = set().union(*batches)
    return {
        "mean_cosine": mean_cosine,
        "random_mean_cosine": random_mean_cosine,
        "coverage": len(covered) / num_videos,
    }


def _mean_cosine(vectors_ND: np.ndarray, batch: Sequence[int]) -> float:
    """Returns the mean cosine of two different members of a batch.

    Let s be the sum of the n unit vectors of a batch. |s|^2 is the sum of all n^2 products, n of
    which multiply a vector by itself. So the mean over the pairs is (|s|^2 - n) / (n^2 - n),
    and no single pair is computed.
    """
    vectors_nD = vectors_ND[list(batch)]
    unit_nD = vectors_nD.astype(np.float64)
    lengths_n1 = np.linalg.norm(unit_nD, axis=1, keepdims=True)
    unit_nD /= np.maximum(lengths_n1, 1e-12)
    total_D = unit_nD.sum(axis=0)
    # The sum of the squares is n, except for rounding and for vectors of zeros.
    sum_of_squares = np.square(unit_nD).sum()
    num_vectors = len(batch)
    num_pairs = num_vectors * (num_vectors - 1)
    return (total_D @ total_D - sum_of_squares) / num_pairs


def ids_fingerprint(ids: Iterable[str]) -> str:
    """Returns a SHA-256 (hex) of the training list, in order."""
    listed = hashlib.sha256()
    for name in ids:
        line = _compact(name) + "\n"
        listed.update(line.encode())
    return listed.hexdigest()


def plan_fingerprint(*, ids: str, weights: str, **settings: Any) -> str:
    """Returns a SHA-256 (hex) of everything that a plan depends on.

    Args:
        ids: `ids_fingerprint` of the training list.
        weights: identifies the weights that embedded the videos.
        settings: epoch, and settings of the batches, the index and the sampling; plain JSON values.
    """
    return _hash(
        {"format": FORMAT, "ids": ids, "weights": weights, "settings": settings}
    )


def _hash(value: Any) -> str:
    content = _compact(value).encode()
    return hashlib.sha256(content).hexdigest()


def _compact(value: Any) -> str:
    return json.dumps(
        value,
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
