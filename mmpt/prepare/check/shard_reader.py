"""Reads one shard: the statistics of its features and captions, and its damage.

A shard is mapped, and features are read in blocks of rows, so memory does not depend on the length
of videos.

Legend: V videos of the shard, C captions of all of them, R feature rows of all of them, D features
(columns), W word-piece slots of a caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.prepare.check.plausible import LONG
from mmpt.prepare.check.statistics import SPAN, SplitStatistics, caption_seconds, measure_rows
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
        damage.append(Damage(file, "", what) if what else Damage("", "", file))


class ShardReader:
    """Reads one shard when it is constructed. `statistics` and `damage` are the results.

    The statistics cover the listed videos only. Damage is reported for all videos.

    Args:
        dataset: the `dataset` section of the config.
        split: the split of the shard.
        shards: the video ids of all shards.
        listed: the ids of the split's list.
        vocabulary: the word pieces by id; None: unknown.
        shard: number of the shard to read.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        split: Split,
        shards: Mapping[int, Sequence[str]],
        listed: set[str],
        vocabulary: Sequence[str] | None,
        shard: int,
    ):
        self.statistics = SplitStatistics(shards_read=1)
        self.damage: list[Damage] = []
        self._ids = shards[shard]
        self._listed_V = np.array([name in listed for name in self._ids], dtype=bool)
        vfeat_dir, tfeat_dir = str(dataset.vfeat_dir), dataset.tfeat_dir
        seconds_V = None
        with collect_errors(self.damage):
            seconds_V = layout.check_shard(vfeat_dir, None, split, shard, shards).seconds
            self._read_features(layout.open_features(vfeat_dir, split, shard))
        if tfeat_dir is not None:
            with collect_errors(self.damage):
                times, pieces = layout.open_captions(tfeat_dir, split, shard)
                if seconds_V is not None:
                    layout.check_shard(vfeat_dir, tfeat_dir, split, shard, shards)
                    self._read_pieces(pieces, vocabulary)
                    self._read_times(times, seconds_V)
        open_shard.cache_clear()  # otherwise, all shards would stay mapped

    def _read_features(self, features: ShardedTensor) -> None:
        """Computes the statistics of feature rows, and reports damaged rows."""
        statistics, tallies = self.statistics, self.statistics.tallies
        seconds_V = features.lengths()
        statistics.videos += int(self._listed_V.sum())
        statistics.seconds += int(seconds_V[self._listed_V].sum())
        tallies["seconds of a video"].add(seconds_V[self._listed_V])
        owners_R = np.repeat(np.arange(len(self._ids), dtype=np.int32), seconds_V)
        norms_R, still_R, constant_D, sum_D = measure_rows(features.data)
        # A row is compared with the previous row of the same video only.
        still_R[1:] &= owners_R[1:] == owners_R[:-1]
        good_R = np.isfinite(norms_R)
        listed_R = self._listed_V[owners_R]
        # Norms, which should be 1.
        lengths = norms_R[listed_R & good_R & (norms_R > 0)]
        tallies["length of a feature row"].add(lengths)
        statistics.uneven_rows += int((np.abs(lengths - 1) > 0.01).sum())
        statistics.zero_rows += int((listed_R & (norms_R == 0)).sum())
        statistics.still_rows += int((listed_R & still_R).sum())
        # Columns and directions that are the same in the whole shard. A single video is not enough,
        # because it may show a still picture.
        if len(seconds_V) > 1 and len(owners_R) >= MIN_ROWS:
            statistics.columns += len(constant_D)
            statistics.constant_columns += int(constant_D.sum())
            statistics.directed_rows += int((good_R & (norms_R > 0)).sum())
            statistics.direction += float(np.linalg.norm(sum_D))
        # Videos with the same features. The middle row and the length stand for a whole video.
        keys = []
        for video in np.flatnonzero(self._listed_V & (seconds_V > 0)).tolist():
            row = features[video][seconds_V[video] // 2]
            if row.any():
                keys.append((int(seconds_V[video]), row.tobytes()))
        statistics.features_alike += len(keys) - len(set(keys))
        # Numbers that are not finite.
        bad_rows = features.data[~good_R]
        statistics.nan += int(np.isnan(bad_rows).sum())
        statistics.infinite += int(np.isinf(bad_rows).sum())
        self._add_damage(features, owners_R[~good_R], "seconds with NaN or infinity")

    def _read_pieces(self, pieces: ShardedTensor, vocabulary: Sequence[str] | None) -> None:
        """Computes the statistics of word pieces, and reports damaged ids."""
        statistics = self.statistics
        owners_C = np.repeat(np.arange(len(self._ids)), pieces.lengths())
        listed_C = self._listed_V[owners_C]
        counts_C = (pieces.data >= 0).sum(axis=1)  # padding is negative
        worded_C = listed_C & (counts_C > 0)
        statistics.tallies["word pieces of a caption"].add(counts_C[listed_C])
        statistics.pieces += int(counts_C[listed_C].sum())
        statistics.empty += int((listed_C & ~worded_C).sum())
        below_C = (pieces.data < -1).any(axis=1)
        self._add_damage(pieces, owners_C[below_C], "captions with ids below -1")
        # Equal captions, and videos with equal captions.
        captions = [hash(row.tobytes()) for row in pieces.data[worded_C]]
        statistics.captions_alike += len(captions) - len(set(captions))
        videos = np.unique(owners_C[worded_C]).tolist()
        texts = [hash(pieces[video].tobytes()) for video in videos]
        statistics.texts_alike += len(texts) - len(set(texts))
        # Word pieces by kind, and ids outside of the vocabulary.
        if vocabulary is not None:
            unknown_CW = pieces.data >= len(vocabulary)
            known_CW = (pieces.data >= 0) & ~unknown_CW
            known = pieces.data[known_CW & listed_C[:, None]]
            names = np.array(vocabulary, dtype=str)
            statistics.unk += int((names == "[UNK]")[known].sum())
            statistics.inside += int(np.char.startswith(names, "##")[known].sum())
            statistics.unknown_pieces += int(unknown_CW[listed_C].sum())
            size = len(vocabulary)
            what = f"captions with ids that the vocabulary of {size} pieces does not have"
            self._add_damage(pieces, owners_C[unknown_CW.any(axis=1)], what)

    def _read_times(self, times: ShardedTensor, seconds_V: np.ndarray) -> None:
        """Computes the statistics of captions and their times, and reports damaged times."""
        statistics, tallies = self.statistics, self.statistics.tallies
        counts_V = times.lengths()
        owners_C = np.repeat(np.arange(len(self._ids)), counts_V)
        finite_C = np.isfinite(times.data).all(axis=1)
        self._add_damage(times, owners_C[~finite_C], "caption times that are NaN or infinite")
        nonempty_V = self._listed_V & (seconds_V > 0)
        statistics.without_captions += int((self._listed_V & (counts_V == 0)).sum())
        statistics.captions += int(counts_V[self._listed_V].sum())
        tallies["captions per minute"].add(60.0 * counts_V[nonempty_V] / seconds_V[nonempty_V])
        # Everything below is about the finite times of listed videos.
        used_C = self._listed_V[owners_C] & finite_C
        starts_C, ends_C = times.data[used_C, 0], times.data[used_C, 1]
        owners_C = owners_C[used_C]
        lengths_C = seconds_V[owners_C]  # of the caption's video
        durations_C = np.maximum(ends_C.astype(np.float64) - starts_C, 0)
        # A caption counts at most as long as its video. Otherwise, a single wrong end would
        # outweigh all other captions.
        counted_C = np.minimum(durations_C, lengths_C)
        inside_V, covered_V = caption_seconds(starts_C, ends_C, owners_C, seconds_V)
        is_earlier = starts_C[1:] < starts_C[:-1]
        is_same_video = owners_C[1:] == owners_C[:-1]
        statistics.spoken_s += float(counted_C.sum())
        statistics.inside_s += float(inside_V.sum())
        statistics.covered_s += float(covered_V.sum())
        statistics.reversed += int((ends_C < starts_C).sum())
        statistics.instant += int((ends_C == starts_C).sum())
        statistics.negative += int((starts_C < 0).sum())
        statistics.late += int((starts_C >= lengths_C).sum())
        statistics.unordered += int((is_earlier & is_same_video).sum())
        # The time from the first start to the last end of each video, compared with its length.
        first_C = np.flatnonzero(np.diff(owners_C, prepend=-1))  # the first caption of each video
        if len(first_C):
            starts_V = np.minimum.reduceat(starts_C, first_C)
            ends_V = np.maximum.reduceat(starts_C + durations_C, first_C)
            lengths_V = np.maximum(lengths_C[first_C], 1)
            statistics.outlasted += int((ends_V - starts_V > LONG * lengths_V).sum())
            statistics.early += int(((ends_V > 0) & (ends_V < 0.1 * lengths_V)).sum())
            # The span that `diagnose_times` uses. A single end may be wrong, so the last start plus
            # the shortest duration replaces the last end.
            spans_V = np.maximum.reduceat(starts_C, first_C) - starts_V
            spans_V += np.minimum.reduceat(durations_C, first_C)
            tallies[SPAN].add(np.log10(np.maximum(spans_V, 1e-4) / lengths_V))
        tallies["seconds of a caption"].add(counted_C)
        tallies["share of a video with captions"].add(covered_V[nonempty_V] / seconds_V[nonempty_V])

    def _add_damage(self, tensor: ShardedTensor, owners: np.ndarray, what: str) -> None:
        """Reports the damaged rows of a tensor, one damage per video.

        Args:
            owners: the video of every damaged row.
            what: what is wrong with them.
        """
        for video, count in zip(*np.unique(owners, return_counts=True), strict=True):
            self.damage.append(
                Damage(f"{tensor.name}_data.npy", self._ids[video], f"{count} {what}")
            )
