"""Reads one shard of features and captions to the last number: statistics, and every damage with
file and video.

Legend: V listed videos of the shard, C their captions, R feature rows, W slots of word pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.prepare.check.statistics import SplitStatistics, caption_seconds
from mmpt.shards.layout import check_shard, open_captions, open_features
from mmpt.shards.shardedtensor import ShardedTensor, open_shard

BLOCK_ROWS = 8192  # 16 MB as float32


class Damage(NamedTuple):
    """A reason why a file or video cannot be trained on."""

    file: str
    video: str  # empty where the whole file is meant
    what: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


@contextmanager
def recorded(damage: list[Damage]) -> Iterator[None]:
    """Adds a DataError of the block, `file: what`, to `damage`."""
    try:
        yield
    except DataError as err:
        file, _, what = str(err).partition(": ")
        damage.append(Damage(file, "", what) if what else Damage("", "", file))


def read_shard(
    dataset: DatasetConfig,
    split: Split,
    shards: Mapping[int, Sequence[str]],
    listed: set[str],
    vocab_size: int | None,
    shard: int,
) -> ShardReader:
    """Reads features and captions of one shard.

    Args:
        shards: the ids of all shards.
        listed: the videos that the statistics count.
        vocab_size: word-piece ids must be below it.
    """
    vfeat_dir, tfeat_dir = str(dataset.vfeat_dir), dataset.tfeat_dir
    reader = ShardReader(shards[shard], listed)
    seconds_V = None
    with recorded(reader.damage):
        seconds_V = check_shard(vfeat_dir, None, split, shard, shards).seconds
        reader.read_features(open_features(vfeat_dir, split, shard))
    if tfeat_dir is not None:
        with recorded(reader.damage):
            times, pieces = open_captions(tfeat_dir, split, shard)
            if seconds_V is not None:
                check_shard(vfeat_dir, tfeat_dir, split, shard, shards)
                reader.read_pieces(pieces, vocab_size)
                reader.read_times(times, seconds_V)
    open_shard.cache_clear()  # or every shard that was read would stay mapped
    return reader


class ShardReader:
    """The statistics of a shard's listed videos, and what is damaged in the shard."""

    def __init__(self, ids: Sequence[str], listed: set[str]):
        self.statistics = SplitStatistics(shards_read=1)
        self.damage: list[Damage] = []
        self._ids = ids
        self._listed_V = np.array([name in listed for name in ids], dtype=bool)

    def read_features(self, features: ShardedTensor) -> None:
        """Counts the feature rows of listed videos; records what is damaged in any."""
        statistics, tallies = self.statistics, self.statistics.tallies
        seconds_V = features.lengths()
        statistics.videos += int(self._listed_V.sum())
        statistics.seconds += int(seconds_V[self._listed_V].sum())
        tallies["seconds of a video"].add(seconds_V[self._listed_V])
        owners_R = np.repeat(np.arange(len(self._ids), dtype=np.int32), seconds_V)
        norms_R = np.empty(len(owners_R), dtype=np.float32)
        for begin in range(0, len(norms_R), BLOCK_ROWS):
            block = slice(begin, begin + BLOCK_ROWS)
            norms_R[block] = np.linalg.norm(features.data[block].astype(np.float32), axis=1)
        good_R = np.isfinite(norms_R)
        tallies["length of a feature row"].add(norms_R[good_R & self._listed_V[owners_R]])
        bad_rows = features.data[~good_R]
        statistics.nan += int(np.isnan(bad_rows).sum())
        statistics.infinite += int(np.isinf(bad_rows).sum())
        self._add_damage(features, owners_R[~good_R], "seconds with NaN or infinity")

    def read_pieces(self, pieces: ShardedTensor, vocab_size: int | None) -> None:
        """Counts the word pieces of listed captions; records what is damaged in any."""
        statistics = self.statistics
        owners_C = np.repeat(np.arange(len(self._ids)), pieces.lengths())
        listed_C = self._listed_V[owners_C]
        counts = (pieces.data >= 0).sum(axis=1)[listed_C]  # padding is below zero
        statistics.tallies["word pieces of a caption"].add(counts)
        statistics.pieces += int(counts.sum())
        statistics.empty += int((counts == 0).sum())
        below_C = (pieces.data < -1).any(axis=1)
        self._add_damage(pieces, owners_C[below_C], "captions with ids below -1")
        if vocab_size is not None:
            unknown_CW = pieces.data >= vocab_size
            statistics.unknown_pieces += int(unknown_CW[listed_C].sum())
            what = f"captions with ids that the vocabulary of {vocab_size} pieces does not have"
            self._add_damage(pieces, owners_C[unknown_CW.any(axis=1)], what)

    def read_times(self, times: ShardedTensor, seconds_V: np.ndarray) -> None:
        """Counts the captions of listed videos and their times; records what is damaged in any."""
        statistics, tallies = self.statistics, self.statistics.tallies
        counts_V = times.lengths()
        owners_C = np.repeat(np.arange(len(self._ids)), counts_V)
        finite_C = np.isfinite(times.data).all(axis=1)
        what = "caption times that are NaN or infinite"
        self._add_damage(times, owners_C[~finite_C], what)
        real_V = self._listed_V & (seconds_V > 0)
        statistics.without_captions += int((self._listed_V & (counts_V == 0)).sum())
        statistics.captions += int(counts_V[self._listed_V].sum())
        tallies["captions per minute"].add(60.0 * counts_V[real_V] / seconds_V[real_V])
        used_C = self._listed_V[owners_C] & finite_C
        starts_C, ends_C, owners_C = times.data[used_C, 0], times.data[used_C, 1], owners_C[used_C]
        durations_C = np.maximum(ends_C.astype(np.float64) - starts_C, 0)
        inside_V, covered_V = caption_seconds(starts_C, ends_C, owners_C, seconds_V)
        steps_back = (starts_C[1:] < starts_C[:-1]) & (owners_C[1:] == owners_C[:-1])
        statistics.spoken_s += float(durations_C.sum())
        statistics.inside_s += float(inside_V.sum())
        statistics.covered_s += float(covered_V.sum())
        statistics.reversed += int((ends_C < starts_C).sum())
        statistics.negative += int((starts_C < 0).sum())
        statistics.late += int((starts_C >= seconds_V[owners_C]).sum())
        statistics.unordered += int(steps_back.sum())
        tallies["seconds of a caption"].add(durations_C)
        tallies["share of a video with captions"].add(covered_V[real_V] / seconds_V[real_V])

    def _add_damage(self, tensor: ShardedTensor, owners: np.ndarray, what: str) -> None:
        """Adds one damage per video among `owners`, the videos of the bad rows."""
        for video, count in zip(*np.unique(owners, return_counts=True), strict=True):
            self.damage.append(
                Damage(f"{tensor.name}_data.npy", self._ids[video], f"{count} {what}")
            )
