"""The videos of a split with their shards and rows, as three arrays, and the checks of the shards.

Arrays are used instead of lists of strings because reading a Python object changes its reference
count. A forked data loader worker would therefore copy every page that it reads. The arrays of a
million videos take 19 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmpt.batch import FEATURE_DIM, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.shards.feature_info import check_feature_info
from mmpt.shards.shardedtensor import (
    ShardedTensor,
    meta_path,
    open_captions,
    open_features,
    read_shard_meta,
)
from mmpt.utils.io import read_lines
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
MAX_LISTED = 5  # ids listed in a message


@dataclass(frozen=True, eq=False)
class VideoTable:
    """A table of N videos: their ids, shards and rows."""

    names: np.ndarray
    """Video ids in UTF-8, bytes [N]."""
    shards: np.ndarray
    """Shard of every video, int32 [N]."""
    rows: np.ndarray
    """Row of every video in its shard, int32 [N]."""

    @classmethod
    def from_shards(cls, shards: Mapping[int, Sequence[str]]) -> VideoTable:
        """Returns the table of all packed videos, in packing order.

        Args:
            shards: the video ids of every shard, in row order.
        """
        names: list[bytes] = []
        shard_numbers: list[int] = []
        rows: list[int] = []
        for shard, ids in shards.items():
            names += map(str.encode, ids)
            shard_numbers += [shard] * len(ids)
            rows += range(len(ids))
        return cls(
            names=np.array(names, dtype=np.bytes_),
            shards=np.array(shard_numbers, dtype=np.int32),
            rows=np.array(rows, dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """Returns the id at `position`."""
        name = self.names[position]
        return name.decode()

    def name_list(self) -> list[str]:
        """Returns all ids, in order."""
        return [name.decode() for name in self.names.tolist()]

    def key(self, position: int, index: int) -> ShardKey:
        """Returns the key of the video at `position`.

        Args:
            index: the video's position in the training list, which the key contains.
        """
        shard = int(self.shards[position])
        row = int(self.rows[position])
        return ShardKey(self.name(position), index, shard, row)

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Returns the position of each id, int64 [len(ids)]; -1 for an id that is not in the table.

        If an id is in the table twice, its first position is returned. The dictionary exists during
        this call only. Building it for a million videos takes a second.
        """
        position_of: dict[bytes, int] = {}
        for position, name in enumerate(self.names.tolist()):
            position_of.setdefault(name, position)
        found = []
        for video_id in ids:
            position = position_of.get(video_id.encode(), -1)
            found.append(position)
        return np.array(found, dtype=np.int64)

    def take(self, positions: np.ndarray) -> VideoTable:
        """Returns the table of some videos.

        Args:
            positions: positions in the wanted order, or a bool mask [N].
        """
        return VideoTable(
            names=self.names[positions],
            shards=self.shards[positions],
            rows=self.rows[positions],
        )


def read_id_list(path: str | Path) -> list[str]:
    """Returns the video ids of a list file, which has one id per line.

    Ids are stripped. Blank lines are skipped. Repeated ids are dropped, with a warning that gives
    their number.

    Raises:
        DataError: the file is missing, is not text, or has no ids.
    """
    lines = read_lines(path, "a list of one video id per line")
    stripped = map(str.strip, lines)
    ids = [line for line in stripped if line]
    if not ids:
        raise DataError(f"{path}: must hold one video id per line, but holds none.")
    unique = list(dict.fromkeys(ids))
    num_repeated = len(ids) - len(unique)
    if num_repeated:
        what = "%s: %d of %d lines repeat an earlier id and are dropped"
        logger.warning(what, path, num_repeated, len(ids))
    return unique


def load_video_table(
    list_path: str | Path,
    config: DatasetConfig,
    split: Split,
    vocab_size: int | None = None,
) -> VideoTable:
    """Returns the usable videos of a list, in list order. It is the same in every process.

    Videos that are not packed are dropped, up to a share of `max_missing`. Videos without a feature
    row or without a caption are left out. Both are counted in the log.

    Args:
        list_path: a file with one video id per line.
        config: its `vfeat_dir`, `max_missing` and `tfeat_dir` are used. Without `tfeat_dir` (None),
            captions are not read.
        vocab_size: word-piece ids must be below it; see `check_shard`.
    Raises:
        DataError: too many videos are not packed, none is usable, a shard is damaged, or the
            features have another width or rate than the config says.
    """
    assert config.vfeat_dir is not None
    check_feature_info(config)
    ids = read_id_list(list_path)
    shards = read_shard_meta(config.vfeat_dir, split)
    # Find the videos of the list in the shards.
    packed = VideoTable.from_shards(shards)
    positions = packed.positions(ids)
    is_packed = positions >= 0
    if not is_packed.all():
        missing = [ids[index] for index in np.flatnonzero(~is_packed)]
        _check_missing(missing, len(ids), list_path, config, split)
    table = packed.take(positions[is_packed])
    # Leave out the videos without features or captions.
    is_usable = _check_shards(table, shards, config, split, vocab_size)
    if not is_usable.any():
        raise DataError(
            f"{list_path}: at least one video must have features and captions, but none of "
            f"{len(ids)} has."
        )
    if not is_usable.all():
        empty = table.take(~is_usable).name_list()
        first_ids = ", ".join(empty[:MAX_LISTED])
        what = (
            "%d videos have no feature row or no caption and are left out (first: %s)"
        )
        logger.warning(what, len(empty), first_ids)
    return table.take(is_usable)


def _check_missing(
    missing: Sequence[str],
    num_listed: int,
    list_path: str | Path,
    config: DatasetConfig,
    split: Split,
) -> None:
    """Logs the listed videos that are not packed, or raises DataError if they are too many."""
    assert config.vfeat_dir is not None
    share = len(missing) / num_listed
    meta = meta_path(config.vfeat_dir, split)
    first_ids = ", ".join(missing[:MAX_LISTED])
    what = (
        f"{list_path}: {len(missing)} of {num_listed} videos ({share:.2%}) are not in {meta} "
        f"(first: {first_ids})"
    )
    if share > config.max_missing:
        raise DataError(
            f"{what}; `dataset.max_missing` allows {config.max_missing:.2%}. Pack their features, "
            "take them off the list, or raise `dataset.max_missing`."
        )
    logger.warning("%s; they are dropped", what)


def _check_shards(
    table: VideoTable,
    shards: Mapping[int, Sequence[str]],
    config: DatasetConfig,
    split: Split,
    vocab_size: int | None,
) -> np.ndarray:
    """Checks every shard of the table and logs captions with wrong times.

    Returns:
        Whether each video has feature rows and, if captions are read, captions; bool [N].
    """
    assert config.vfeat_dir is not None
    is_usable = np.ones(len(table), dtype=bool)
    num_captions = num_reversed = num_outside = 0
    for shard in np.unique(table.shards).tolist():
        counts = check_shard(
            config.vfeat_dir,
            config.tfeat_dir,
            split,
            shard,
            shards,
            vocab_size,
            width=config.feature_dim,
            fps=config.feature_fps,
        )
        # The counts are in row order. Bring them into the order of the table.
        in_shard = table.shards == shard
        rows = table.rows[in_shard]
        is_usable[in_shard] = counts.feature_rows[rows] > 0
        if counts.captions is not None:
            is_usable[in_shard] &= counts.captions[rows] > 0
            num_captions += int(counts.captions.sum())
            num_reversed += counts.reversed_times
            num_outside += counts.outside_times
    # A table without usable videos is an error, which the caller raises. It needs no warning.
    if is_usable.any() and (num_reversed or num_outside):
        what = (
            "%s*: %d of %d captions reach outside their video, %d end before they start; clips are "
            "clamped"
        )
        logger.warning(what, config.tfeat_dir, num_outside, num_captions, num_reversed)
    return is_usable


class ShardCounts(NamedTuple):
    """The number of feature rows and captions of every video of a shard."""

    feature_rows: np.ndarray
    """Feature rows, int64 [videos]."""
    captions: np.ndarray | None
    """Captions, int64 [videos]; None if captions are not read."""
    reversed_times: int = 0
    """Captions that end before they start."""
    outside_times: int = 0
    """Captions that start before their video or end after it."""


def check_shard(
    vfeat_dir: str,
    tfeat_dir: str | None,
    split: Split,
    shard: int,
    shards: Mapping[int, Sequence[str]],
    vocab_size: int | None = None,
    num_sampled: int = 4096,
    *,
    width: int = FEATURE_DIM,
    fps: float = 1.0,
) -> ShardCounts:
    """Opens the tensors of one shard and checks that they fit each other.

    No features are read. Word-piece ids are checked for the first captions only. This is enough to
    find captions that were tokenised for another BERT. Reading all ids of HowTo100M would delay a
    start by minutes. A damaged id of a later caption is found when that caption is drawn, or by
    `mmpt check`.

    Args:
        vfeat_dir: folder of the feature shards.
        tfeat_dir: path prefix of the caption files; None if captions are not read.
        shard: number of the shard.
        shards: the video ids of all shards.
        vocab_size: word-piece ids must be below it; None: ids are not checked.
        num_sampled: number of captions whose ids are checked.
        width: width of the features.
        fps: feature rows per second.
    Raises:
        DataError: a file is missing or damaged, features are not [rows, width] floats, row counts
            differ, or a word-piece id is not below `vocab_size`.
    """
    # All tensors of the shard must have one row per video.
    tensors = [open_features(vfeat_dir, split, shard, width)]
    if tfeat_dir is not None:
        tensors += open_captions(tfeat_dir, split, shard)
    video_ids = shards[shard]
    num_videos = len(video_ids)
    for tensor in tensors:
        if len(tensor) != num_videos:
            raise DataError(
                f"{tensor.name}: must have one row per video of {meta_path(vfeat_dir, split)}, "
                f"{num_videos}, but has {len(tensor)}. Features, captions and meta file "
                "must come from the same packing: make them again."
            )
    feature_rows = tensors[0].lengths()
    if tfeat_dir is None:
        return ShardCounts(feature_rows, None)
    # Times and ids must belong to the same captions.
    _, times, ids = tensors
    _check_caption_counts(times, ids, video_ids)
    if vocab_size is not None:
        _check_vocabulary(ids, video_ids, vocab_size, num_sampled)
    return _count_captions(feature_rows, times, fps)


def _count_captions(
    feature_rows: np.ndarray, times: ShardedTensor, fps: float
) -> ShardCounts:
    """Counts the captions, and those that are reversed or reach outside their video.

    Args:
        feature_rows: number of feature rows of every video.
        times: start and end of the captions of every video.
        fps: feature rows per second.
    """
    num_captions = times.lengths()
    video_ends = np.repeat(feature_rows / fps, num_captions)
    starts = times.data[:, 0]
    ends = times.data[:, 1]
    is_reversed = ends < starts
    latest = np.maximum(starts, ends)
    is_outside = (starts < 0) | (latest > video_ends)
    return ShardCounts(
        feature_rows=feature_rows,
        captions=num_captions,
        reversed_times=int(is_reversed.sum()),
        outside_times=int(is_outside.sum()),
    )


def _check_caption_counts(
    times: ShardedTensor, ids: ShardedTensor, video_ids: Sequence[str]
) -> None:
    """Raises DataError if a video does not have as many captions as times."""
    num_times = times.lengths()
    num_ids = ids.lengths()
    differs = num_times != num_ids
    if not differs.any():
        return
    row = int(differs.argmax())
    raise DataError(
        f"{ids.name}: video {video_ids[row]} (row {row}) must have one row per time, "
        f"{num_times[row]}, but has {num_ids[row]}. Tokenise this shard again."
    )


def _check_vocabulary(
    ids: ShardedTensor, video_ids: Sequence[str], vocab_size: int, num_sampled: int
) -> None:
    """Raises DataError if one of the first captions has an id that is not in the vocabulary."""
    sample = ids.data[:num_sampled]
    if sample.max(initial=0) < vocab_size:
        return
    # Find the first such caption, and the video that it belongs to.
    is_unknown = sample >= vocab_size
    caption = int(is_unknown.any(axis=1).argmax())
    next_row = np.searchsorted(ids.starts, caption, side="right")
    row = int(next_row) - 1
    largest = sample[caption].max()
    raise DataError(
        f"{ids.name}: video {video_ids[row]} (row {row}) must have word-piece ids below "
        f"{vocab_size}, the vocabulary of `dataset.bert_name`, but has {largest}. Tokenise the "
        "captions with the same BERT, or correct `dataset.bert_name`."
    )
