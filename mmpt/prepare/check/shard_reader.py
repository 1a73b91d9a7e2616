"""Reads one shard: the statistics of its features and captions, and its damage.

A shard is mapped, and features are read in blocks of rows, so memory does not depend on the length
of videos.

Legend: V videos of the shard, C captions of all of them, R feature rows of all of them, D features
(columns), W word-piece slots of a caption.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.prepare.check.measures import RowMeasures, caption_seconds, measure_rows
from mmpt.prepare.check.plausible import LONG
from mmpt.prepare.check.statistics import SPAN, SplitStatistics
from mmpt.shards import layout
from mmpt.shards.shardedtensor import ShardedTensor, open_shard

MIN_ROWS = 100
"""Smallest number of feature rows that are compared with each other. Fewer may be similar by
chance.
"""


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


class ShardReport(NamedTuple):
    """The results of reading a shard."""

    statistics: SplitStatistics
    """Statistics of the listed videos."""
    damage: list[Damage]
    """Damage of all videos."""


def read_shard(
    dataset: DatasetConfig,
    split: Split,
    shards: Mapping[int, Sequence[str]],
    listed: Container[str],
    vocabulary: Sequence[str] | None,
    shard: int,
) -> ShardReport:
    """Reads the features and captions of one shard.

    Args:
        dataset: the `dataset` section of the config.
        split: the split of the shard.
        shards: the video ids of all shards.
        listed: the ids of the split's list.
        vocabulary: the word pieces by id; None: unknown.
        shard: number of the shard to read.
    """
    vfeat_dir = str(dataset.vfeat_dir)
    tfeat_dir = dataset.tfeat_dir
    reader = _ShardReader(shards[shard], listed)
    seconds_V = None
    with collect_errors(reader.damage):
        seconds_V = layout.check_shard(vfeat_dir, None, split, shard, shards).seconds
        features = layout.open_features(vfeat_dir, split, shard)
        reader.read_features(features)
    if tfeat_dir is not None:
        with collect_errors(reader.damage):
            times, pieces = layout.open_captions(tfeat_dir, split, shard)
            if seconds_V is not None:
                layout.check_shard(vfeat_dir, tfeat_dir, split, shard, shards)
                reader.read_pieces(pieces)
                if vocabulary is not None:
                    reader.read_vocabulary(pieces, vocabulary)
                reader.read_times(times, seconds_V)
    open_shard.cache_clear()  # otherwise, all shards would stay mapped
    return ShardReport(reader.statistics, reader.damage)


class _ShardReader:
    """Collects the statistics of the listed videos of a shard, and the damage of all of its videos.

    Args:
        ids: the videos of the shard.
        listed: the ids of the split's list.
    """

    def __init__(self, ids: Sequence[str], listed: Container[str]):
        self.statistics = SplitStatistics(shards_read=1)
        self.damage: list[Damage] = []
        self.ids = ids
        self.listed_V = np.array([name in listed for name in ids], dtype=bool)

    def read_features(self, features: ShardedTensor) -> None:
        """Computes the statistics of feature rows, and reports damaged rows."""
        statistics = self.statistics
        seconds_V = features.lengths()
        listed_seconds = seconds_V[self.listed_V]
        statistics.videos = _num_true(self.listed_V)
        statistics.seconds = int(listed_seconds.sum())
        statistics.tallies["seconds of a video"].add(listed_seconds)
        owners_R = self._owners(features)
        rows = measure_rows(features.data)
        self._count_rows(rows, owners_R)
        # A single video may show a still picture, so it is not enough to compare rows.
        if len(seconds_V) > 1 and len(owners_R) >= MIN_ROWS:
            self._compare_rows(rows)
        self._compare_videos(features, seconds_V)
        # Numbers that are not finite.
        damaged_R = ~np.isfinite(rows.norms)
        damaged_rows = features.data[damaged_R]
        statistics.nan = _num_true(np.isnan(damaged_rows))
        statistics.infinite = _num_true(np.isinf(damaged_rows))
        self._add_damage(features, owners_R[damaged_R], "seconds with NaN or infinity")

    def _count_rows(self, rows: RowMeasures, owners_R: np.ndarray) -> None:
        """Counts rows of zeros, rows that repeat the previous one, and norms other than 1.

        Args:
            owners_R: the video of each row.
        """
        statistics = self.statistics
        listed_R = self.listed_V[owners_R]
        zero_R = rows.norms == 0
        statistics.zero_rows = _num_true(listed_R & zero_R)
        # A row is compared with the previous row of the same video only.
        still_R = rows.is_still.copy()
        is_same_video = owners_R[1:] == owners_R[:-1]
        still_R[1:] &= is_same_video
        statistics.still_rows = _num_true(listed_R & still_R)
        measured_R = listed_R & _has_direction(rows)
        norms = rows.norms[measured_R]
        statistics.tallies["length of a feature row"].add(norms)
        deviations = np.abs(norms - 1)
        statistics.uneven_rows = _num_true(deviations > 0.01)

    def _compare_rows(self, rows: RowMeasures) -> None:
        """Counts columns that are constant in the whole shard, and sums directions."""
        statistics = self.statistics
        statistics.columns = len(rows.is_constant)
        statistics.constant_columns = _num_true(rows.is_constant)
        statistics.directed_rows = _num_true(_has_direction(rows))
        statistics.direction = float(np.linalg.norm(rows.direction))

    def _compare_videos(self, features: ShardedTensor, seconds_V: np.ndarray) -> None:
        """Counts videos with the features of another one. Length and middle row are compared."""
        keys = []
        compared_V = self.listed_V & (seconds_V > 0)
        for video in np.flatnonzero(compared_V).tolist():
            num_seconds = int(seconds_V[video])
            middle_row = features[video][num_seconds // 2]
            if middle_row.any():
                keys.append((num_seconds, middle_row.tobytes()))
        self.statistics.features_alike = _num_repeated(keys)

    def read_pieces(self, pieces: ShardedTensor) -> None:
        """Computes the statistics of word pieces that need no vocabulary."""
        statistics = self.statistics
        owners_C = self._owners(pieces)
        listed_C = self.listed_V[owners_C]
        counts_C = (pieces.data >= 0).sum(axis=1)  # padding is negative
        listed_counts = counts_C[listed_C]
        statistics.pieces = int(listed_counts.sum())
        statistics.empty = _num_true(listed_counts == 0)
        statistics.tallies["word pieces of a caption"].add(listed_counts)
        below_CW = pieces.data < -1
        below_C = below_CW.any(axis=1)
        self._add_damage(pieces, owners_C[below_C], "captions with ids below -1")
        # Equal captions, and videos with equal captions.
        worded_C = listed_C & (counts_C > 0)
        captions = [hash(row.tobytes()) for row in pieces.data[worded_C]]
        statistics.captions_alike = _num_repeated(captions)
        videos = np.unique(owners_C[worded_C]).tolist()
        texts = [hash(pieces[video].tobytes()) for video in videos]
        statistics.texts_alike = _num_repeated(texts)

    def read_vocabulary(self, pieces: ShardedTensor, vocabulary: Sequence[str]) -> None:
        """Counts word pieces by kind, and reports ids outside the vocabulary."""
        statistics = self.statistics
        owners_C = self._owners(pieces)
        listed_C = self.listed_V[owners_C]
        size = len(vocabulary)
        unknown_CW = pieces.data >= size
        known_CW = (pieces.data >= 0) & ~unknown_CW
        counted_CW = known_CW & listed_C[:, None]
        ids = pieces.data[counted_CW]
        # Look the kind of every piece up in a table.
        names = np.array(vocabulary, dtype=str)
        is_unk = names == "[UNK]"
        is_inside = np.char.startswith(names, "##")
        statistics.unk = _num_true(is_unk[ids])
        statistics.inside = _num_true(is_inside[ids])
        statistics.unknown_pieces = _num_true(unknown_CW[listed_C])
        damaged_C = unknown_CW.any(axis=1)
        what = f"captions with ids that the vocabulary of {size} pieces does not have"
        self._add_damage(pieces, owners_C[damaged_C], what)

    def read_times(self, times: ShardedTensor, seconds_V: np.ndarray) -> None:
        """Computes the statistics of captions and their times, and reports damaged times.

        Args:
            seconds_V: length of every video in seconds.
        """
        statistics = self.statistics
        counts_V = times.lengths()
        uncaptioned_V = self.listed_V & (counts_V == 0)
        statistics.without_captions = _num_true(uncaptioned_V)
        statistics.captions = int(counts_V[self.listed_V].sum())
        owners_C = self._owners(times)
        finite_C = np.isfinite(times.data).all(axis=1)
        self._add_damage(times, owners_C[~finite_C], "caption times that are NaN or infinite")
        # Everything below is about the finite times of listed videos.
        used_C = self.listed_V[owners_C] & finite_C
        starts_C = times.data[used_C, 0]
        ends_C = times.data[used_C, 1]
        owners_C = owners_C[used_C]
        lengths_C = seconds_V[owners_C]  # of the caption's video
        differences_C = ends_C.astype(np.float64) - starts_C
        durations_C = np.maximum(differences_C, 0)
        self._count_times(starts_C, ends_C, owners_C, lengths_C)
        self._compare_spans(starts_C, durations_C, owners_C, lengths_C)
        # A caption counts at most as long as its video. Otherwise, a single wrong end would
        # outweigh all other captions.
        counted_C = np.minimum(durations_C, lengths_C)
        inside_V, covered_V = caption_seconds(starts_C, ends_C, owners_C, seconds_V)
        statistics.spoken_s = float(counted_C.sum())
        statistics.inside_s = float(inside_V.sum())
        statistics.covered_s = float(covered_V.sum())
        nonempty_V = self.listed_V & (seconds_V > 0)
        lengths_s = seconds_V[nonempty_V]
        rates = 60.0 * counts_V[nonempty_V] / lengths_s
        shares = covered_V[nonempty_V] / lengths_s
        tallies = statistics.tallies
        tallies["captions per minute"].add(rates)
        tallies["seconds of a caption"].add(counted_C)
        tallies["share of a video with captions"].add(shares)

    def _count_times(
        self,
        starts_C: np.ndarray,
        ends_C: np.ndarray,
        owners_C: np.ndarray,
        lengths_C: np.ndarray,
    ) -> None:
        """Counts captions with wrong times.

        Args:
            starts_C: start times in seconds.
            ends_C: end times in seconds.
            owners_C: the video of each caption.
            lengths_C: length of this video in seconds.
        """
        statistics = self.statistics
        statistics.reversed = _num_true(ends_C < starts_C)
        statistics.instant = _num_true(ends_C == starts_C)
        statistics.negative = _num_true(starts_C < 0)
        statistics.late = _num_true(starts_C >= lengths_C)
        is_earlier = starts_C[1:] < starts_C[:-1]
        is_same_video = owners_C[1:] == owners_C[:-1]
        statistics.unordered = _num_true(is_earlier & is_same_video)

    def _compare_spans(
        self,
        starts_C: np.ndarray,
        durations_C: np.ndarray,
        owners_C: np.ndarray,
        lengths_C: np.ndarray,
    ) -> None:
        """Compares the time from the first to the last caption of each video with its length.

        Args:
            starts_C: start times in seconds.
            durations_C: durations in seconds.
            owners_C: the video of each caption, non-decreasing.
            lengths_C: length of this video in seconds.
        """
        statistics = self.statistics
        is_first_C = np.diff(owners_C, prepend=-1) != 0
        first_C = np.flatnonzero(is_first_C)  # the first caption of each video
        if not len(first_C):
            return
        lengths_V = np.maximum(lengths_C[first_C], 1)
        first_starts_V = np.minimum.reduceat(starts_C, first_C)
        last_starts_V = np.maximum.reduceat(starts_C, first_C)
        last_ends_V = np.maximum.reduceat(starts_C + durations_C, first_C)
        outlasted_V = last_ends_V - first_starts_V > LONG * lengths_V
        statistics.outlasted = _num_true(outlasted_V)
        early_V = (last_ends_V > 0) & (last_ends_V < 0.1 * lengths_V)
        statistics.early = _num_true(early_V)
        # The span that `diagnose_times` uses. A single end may be wrong, so the last start plus
        # the shortest duration replaces the last end.
        spans_V = last_starts_V - first_starts_V
        spans_V += np.minimum.reduceat(durations_C, first_C)
        factors_V = np.maximum(spans_V, 1e-4) / lengths_V
        statistics.tallies[SPAN].add(np.log10(factors_V))

    def _owners(self, tensor: ShardedTensor) -> np.ndarray:
        """Returns the video of each row of a tensor, int32."""
        videos = np.arange(len(self.ids), dtype=np.int32)
        return np.repeat(videos, tensor.lengths())

    def _add_damage(self, tensor: ShardedTensor, owners: np.ndarray, what: str) -> None:
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


def _has_direction(rows: RowMeasures) -> np.ndarray:
    """Returns whether a feature row is neither zero nor damaged, bool [R]."""
    return np.isfinite(rows.norms) & (rows.norms > 0)


def _num_true(mask: np.ndarray) -> int:
    """Returns the number of true values."""
    return int(mask.sum())


def _num_repeated(values: Sequence[Hashable]) -> int:
    """Returns the number of values that are equal to an earlier one."""
    return len(values) - len(set(values))
