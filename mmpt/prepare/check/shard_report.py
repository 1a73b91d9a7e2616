"""The results of reading one shard: the statistics of its listed videos, and its damage."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mmpt.errors import DataError
from mmpt.prepare.check.statistics import SplitStatistics
from mmpt.shards.shardedtensor import ShardedTensor


class Damage(NamedTuple):
    """A reason why a file or video cannot be used for training."""

    file: str
    video: str  # id; empty if the whole file is damaged
    what: str  # the reason

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


@contextmanager
def collect_errors(damage: list[Damage]) -> Iterator[None]:
    """Adds a DataError of the block to `damage`. Its message must be `file: reason`."""
    try:
        yield
    except DataError as err:
        file, _, what = str(err).partition(": ")
        if not what:  # the message names no file
            file, what = "", file
        damage.append(Damage(file, "", what))


class ShardReport:
    """The statistics of the listed videos of a shard, and the damage of all of its videos.

    Args:
        ids: the videos of the shard.
        listed: the ids of the split's list.
    """

    def __init__(self, ids: Sequence[str], listed: Container[str]):
        self.statistics = SplitStatistics(shards_read=1)
        self.damage: list[Damage] = []
        self.ids = ids
        self.listed_V = np.array([name in listed for name in ids], dtype=bool)

    def owners(self, tensor: ShardedTensor) -> np.ndarray:
        """Returns the video of each row of a tensor, int32."""
        videos = np.arange(len(self.ids), dtype=np.int32)
        return np.repeat(videos, tensor.lengths())

    def add_damage(self, tensor: ShardedTensor, owners: np.ndarray, what: str) -> None:
        """Reports the damaged rows of a tensor, one damage per video.

        Args:
            owners: the video of every damaged row.
            what: what is wrong with them.
        """
        file = f"{tensor.name}_data.npy"
        videos, counts = np.unique(owners, return_counts=True)
        for video, count in zip(videos, counts, strict=True):
            damage = Damage(file, self.ids[video], f"{count} {what}")
            self.damage.append(damage)
