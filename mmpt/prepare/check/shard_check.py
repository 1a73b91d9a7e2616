"""Reads one shard of features and captions to the last number: statistics, and every damage with
file and video.

Legend: V listed videos of the shard, C their captions, R feature rows, W slots of word pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.check.split_statistics import SplitStatistics
from mmpt.prepare.check.statistics import caption_seconds, num_unordered
from mmpt.shards.layout import check_shard, open_captions, open_features
from mmpt.shards.shardedtensor import ShardedTensor, open_shard

BLOCK_ROWS = 8192  # 16 MB as float32


class Damage(NamedTuple):
    """A reason why a file or video cannot be trained on."""

    file: str
    video: str  # empty where the whole file is meant
    what: str

    @classmethod
    def from_error(cls, err: DataError) -> Damage:
        """Take a message of the form `file: what` apart."""
        file, _, what = str(err).partition(": ")
        return cls(file, "", what) if what else cls("", "", file)

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """Reads a shard of a split; holds nothing of it."""

    vfeat_dir: str
    tfeat_dir: str | None
    split: Split
    shards: Mapping[int, Sequence[str]]
    listed: frozenset[str]
    vocab_size: int | None

    def __call__(self, shard: int) -> tuple[SplitStatistics, list[Damage]]:
        """Returns the statistics of a shard's listed videos, and what is damaged in the shard."""
        ids = self.shards[shard]
        listed_V = np.array([name in self.listed for name in ids], dtype=bool)
        statistics = SplitStatistics(shards_read=1)
        damage: list[Damage] = []
        where = self.split, shard
        try:
            seconds_V = check_shard(self.vfeat_dir, None, *where, self.shards).seconds
            features = open_features(self.vfeat_dir, *where)
            damage += _read_features(features, ids, listed_V, statistics)
        except DataError as err:
            damage.append(Damage.from_error(err))
            seconds_V = None
        try:
            if self.tfeat_dir is not None:
                times, pieces = open_captions(self.tfeat_dir, *where)
                if seconds_V is not None:
                    check_shard(self.vfeat_dir, self.tfeat_dir, *where, self.shards)
                    damage += self._read_pieces(pieces, times, ids, listed_V, statistics)
                    damage += _read_times(times, ids, listed_V, seconds_V, statistics)
        except DataError as err:
            damage.append(Damage.from_error(err))
        open_shard.cache_clear()  # or every shard that was read would stay mapped
        return statistics, damage

    def _read_pieces(
        self,
        pieces: ShardedTensor,
        times: ShardedTensor,
        ids: Sequence[str],
        listed_V: np.ndarray,
        statistics: SplitStatistics,
    ) -> Iterator[Damage]:
        """Counts the word pieces of listed captions; yields what is damaged in any."""
        owners_C = np.repeat(np.arange(len(ids)), times.lengths())
        below, beyond = [], []
        for begin in range(0, len(pieces.data), BLOCK_ROWS):
            ids_CW = pieces.data[begin : begin + BLOCK_ROWS]
            owners = owners_C[begin : begin + BLOCK_ROWS]
            listed = listed_V[owners]
            counts = (ids_CW >= 0).sum(axis=1)[listed]  # padding is below zero
            statistics.tallies["word pieces of a caption"].add(counts)
            statistics.pieces += int(counts.sum())
            statistics.empty += int((counts == 0).sum())
            below.append(owners[(ids_CW < -1).any(axis=1)])
            if self.vocab_size is not None:
                unknown = ids_CW >= self.vocab_size
                statistics.unknown_pieces += int(unknown[listed].sum())
                beyond.append(owners[unknown.any(axis=1)])
        yield from _per_video(pieces, ids, below, "captions with ids below -1")
        what = f"captions with ids that the vocabulary of {self.vocab_size} pieces does not have"
        yield from _per_video(pieces, ids, beyond, what)


def _read_features(
    features: ShardedTensor, ids: Sequence[str], listed_V: np.ndarray, statistics: SplitStatistics
) -> Iterator[Damage]:
    """Counts the feature rows of listed videos; yields what is damaged in any."""
    seconds_V = features.lengths()
    statistics.videos += int(listed_V.sum())
    statistics.seconds += int(seconds_V[listed_V].sum())
    statistics.tallies["seconds of a video"].add(seconds_V[listed_V])
    owners_R = np.repeat(np.arange(len(ids), dtype=np.int32), seconds_V)
    bad = []
    for begin in range(0, len(features.data), BLOCK_ROWS):
        rows_RD = features.data[begin : begin + BLOCK_ROWS]
        owners = owners_R[begin : begin + BLOCK_ROWS]
        norms_R = np.linalg.norm(rows_RD.astype(np.float32), axis=1)
        bad_R = ~np.isfinite(norms_R)
        statistics.nan += int(np.isnan(rows_RD[bad_R]).sum())
        statistics.infinite += int(np.isinf(rows_RD[bad_R]).sum())
        bad.append(owners[bad_R])
        statistics.tallies["length of a feature row"].add(norms_R[~bad_R & listed_V[owners]])
    yield from _per_video(features, ids, bad, "seconds with NaN or infinity")


def _read_times(
    times: ShardedTensor,
    ids: Sequence[str],
    listed_V: np.ndarray,
    seconds_V: np.ndarray,
    statistics: SplitStatistics,
) -> Iterator[Damage]:
    """Counts the captions of listed videos and their times; yields what is damaged in any."""
    counts_V = times.lengths()
    owners_C = np.repeat(np.arange(len(ids)), counts_V)
    finite_C = np.isfinite(times.data).all(axis=1)
    bad = owners_C[~finite_C]
    yield from _per_video(times, ids, [bad], "caption times that are NaN or infinite")
    real_V = listed_V & (seconds_V > 0)
    statistics.without_captions += int((listed_V & (counts_V == 0)).sum())
    statistics.captions += int(counts_V[listed_V].sum())
    per_minute = 60.0 * counts_V[real_V] / seconds_V[real_V]
    statistics.tallies["captions per minute"].add(per_minute)
    used_C = listed_V[owners_C] & finite_C
    starts_C, ends_C, owners_C = times.data[used_C, 0], times.data[used_C, 1], owners_C[used_C]
    durations_C = np.maximum(ends_C.astype(np.float64) - starts_C, 0)
    inside_V, covered_V = caption_seconds(starts_C, ends_C, owners_C, seconds_V)
    statistics.spoken_s += float(durations_C.sum())
    statistics.inside_s += float(inside_V.sum())
    statistics.covered_s += float(covered_V.sum())
    statistics.reversed += int((ends_C < starts_C).sum())
    statistics.negative += int((starts_C < 0).sum())
    statistics.late += int((starts_C >= seconds_V[owners_C]).sum())
    statistics.unordered += num_unordered(starts_C, owners_C)
    statistics.tallies["seconds of a caption"].add(durations_C)
    statistics.tallies["share of a video with captions"].add(covered_V[real_V] / seconds_V[real_V])


def _per_video(
    tensor: ShardedTensor, ids: Sequence[str], owners: Sequence[np.ndarray], what: str
) -> Iterator[Damage]:
    """Yields one damage per video among `owners`, the videos of the bad rows of every block."""
    if not owners:
        return
    for video, count in zip(*np.unique(np.concatenate(owners), return_counts=True), strict=True):
        yield Damage(f"{tensor.name}_data.npy", ids[video], f"{count} {what}")
