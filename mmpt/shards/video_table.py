"""The videos of a split with their shards and rows, as three arrays.

Arrays are used instead of lists of strings because reading a Python object changes its reference
count. A forked data loader worker would therefore copy every page that it reads. The arrays of a
million videos take 19 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt.batch import ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.shards.layout import check_shard, meta_path, read_shard_meta
from mmpt.utils.io import read_lines
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
NUM_NAMED = 5  # ids listed in a message


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
        DataError: too many videos are not packed, none is usable, or a shard is damaged.
    """
    assert config.vfeat_dir is not None
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
        first_ids = ", ".join(empty[:NUM_NAMED])
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
    first_ids = ", ".join(missing[:NUM_NAMED])
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
            config.vfeat_dir, config.tfeat_dir, split, shard, shards, vocab_size
        )
        # The counts are in row order. Bring them into the order of the table.
        in_shard = table.shards == shard
        rows = table.rows[in_shard]
        is_usable[in_shard] = counts.seconds[rows] > 0
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
