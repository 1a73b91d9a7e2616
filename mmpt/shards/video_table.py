"""The videos of a split and their places, as three arrays: a million videos cost 19 MB and no
Python objects.

Arrays, not lists of strings, because reading a Python object writes its reference count, and a
forked loader worker would copy every page it reads.
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
NUM_NAMED = 5  # ids shown in a message


@dataclass(frozen=True, eq=False)
class VideoTable:
    """Video ids with shard and row."""

    names: np.ndarray
    """UTF-8 bytes [N] of one width."""
    shards: np.ndarray
    """int32 [N]."""
    rows: np.ndarray
    """int32 [N]."""

    @classmethod
    def from_shards(cls, shards: Mapping[int, Sequence[str]]) -> VideoTable:
        """Returns the table of everything that is packed, in packing order."""
        names = [name.encode() for ids in shards.values() for name in ids]
        sizes = [len(ids) for ids in shards.values()]
        rows = [np.arange(size, dtype=np.int32) for size in sizes]
        return cls(
            np.array(names, dtype=np.bytes_),
            np.repeat(np.array(list(shards), dtype=np.int32), sizes),
            np.concatenate([*rows, np.zeros(0, dtype=np.int32)]),
        )

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """Returns the id at `position`."""
        return self.names[position].decode()

    def name_list(self) -> list[str]:
        """Returns all ids, in order."""
        return [name.decode() for name in self.names.tolist()]

    def key(self, position: int, index: int) -> ShardKey:
        """Returns the key of the video at `position`; `index` is what it says of its place in the
        list.
        """
        return ShardKey(
            self.name(position), index, int(self.shards[position]), int(self.rows[position])
        )

    def positions(self, ids: Sequence[str]) -> np.ndarray:
        """Returns where each id is, int64 [len(ids)]; -1 where it is not, the first place where it
        is twice.

        The dictionary lives for this call only: a million videos take a second, and no memory
        afterwards.
        """
        backwards = range(len(self) - 1, -1, -1)
        where = dict(zip(reversed(self.names.tolist()), backwards, strict=True))
        return np.fromiter(
            (where.get(name.encode(), -1) for name in ids), dtype=np.int64, count=len(ids)
        )

    def take(self, positions: np.ndarray) -> VideoTable:
        """Returns the table of these positions, in this order, or of those that are True."""
        return VideoTable(self.names[positions], self.shards[positions], self.rows[positions])


def read_id_list(path: str | Path) -> list[str]:
    """Returns the ids of a list file: one per line, stripped, blank lines skipped, repeats dropped
    and counted.

    Raises:
        DataError: missing, not text, or without any id.
    """
    lines = read_lines(path, "a list of one video id per line")
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path}: must hold one video id per line, but holds none.")
    unique = list(dict.fromkeys(ids))
    if len(unique) < len(ids):
        what = "%s: %d of %d lines repeat an earlier id and are dropped"
        logger.warning(what, path, len(ids) - len(unique), len(ids))
    return unique


def load_video_table(
    list_path: str | Path, config: DatasetConfig, split: Split, vocab_size: int | None = None
) -> VideoTable:
    """Returns the usable videos of a list, in list order, the same in every process.

    Ids that are not packed are dropped up to a share of `max_missing`; videos without a feature row
    or without a caption are left out. Both are counted in the log.

    Args:
        config: gives vfeat_dir, max_missing and tfeat_dir, which is None where captions are not
            read.
        vocab_size: word-piece ids must be below it; looked at in the first captions of every shard.
    Raises:
        DataError: more than `max_missing` are not packed, none is usable, or a shard is damaged.
    """
    vfeat_dir, tfeat_dir, max_missing = config.vfeat_dir, config.tfeat_dir, config.max_missing
    assert vfeat_dir is not None
    ids = read_id_list(list_path)
    shards = read_shard_meta(vfeat_dir, split)
    packed = VideoTable.from_shards(shards)
    positions = packed.positions(ids)
    missing = [ids[index] for index in np.flatnonzero(positions < 0)]
    if missing:
        share = len(missing) / len(ids)
        what = (
            f"{list_path}: {len(missing)} of {len(ids)} videos ({share:.2%}) are not in "
            f"{meta_path(vfeat_dir, split)} (first: {', '.join(missing[:NUM_NAMED])})"
        )
        if share > max_missing:
            raise DataError(
                f"{what}; `dataset.max_missing` allows {max_missing:.2%}. Pack their features, "
                "take them off the list, or raise `dataset.max_missing`."
            )
        logger.warning("%s; they are dropped", what)
    table = packed.take(positions[positions >= 0])
    # Check every shard, and find the videos without seconds or captions.
    usable = np.ones(len(table), dtype=bool)
    num_captions = num_reversed = num_outside = 0
    for shard in np.unique(table.shards).tolist():
        counts = check_shard(vfeat_dir, tfeat_dir, split, shard, shards, vocab_size)
        here = np.flatnonzero(table.shards == shard)
        usable[here] = counts.seconds[table.rows[here]] > 0
        if counts.captions is not None:
            usable[here] &= counts.captions[table.rows[here]] > 0
            num_captions += int(counts.captions.sum())
            num_reversed += counts.reversed_times
            num_outside += counts.outside_times
    if not usable.any():
        raise DataError(
            f"{list_path}: at least one video must have features and captions, but none of "
            f"{len(ids)} has."
        )
    if not usable.all():
        empty = table.take(~usable).name_list()
        what = "%d videos have no feature row or no caption and are left out (first: %s)"
        logger.warning(what, len(empty), ", ".join(empty[:NUM_NAMED]))
    if num_reversed or num_outside:
        what = (
            "%s*: %d of %d captions reach outside their video, %d end before they start; clips are "
            "clamped"
        )
        logger.warning(what, tfeat_dir, num_outside, num_captions, num_reversed)
    return table.take(usable)
