"""The features of all packed videos of a folder, by video id."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.shards.shardedtensor import (
    ShardedTensor,
    meta_path,
    open_features,
    read_shard_meta,
)
from mmpt.utils.log import get_logger

logger = get_logger(__name__)


class ShardVideos(Mapping[str, np.ndarray]):
    """The features, float [rows, width], of the videos of a folder of shards, by video id.

    Both splits are read, if they exist. Videos without a feature row are left out. Features may
    have any width, which the caller must check.

    Args:
        vfeat_dir: the folder.
    Raises:
        DataError: there are no shards, a shard is damaged, or a video is packed twice.
    """

    def __init__(self, vfeat_dir: str | Path):
        self._vfeat_dir = str(vfeat_dir)
        self._place_of: dict[str, tuple[Split, int, int]] = {}
        num_empty = 0
        for split in self._splits():
            for shard, ids in read_shard_meta(vfeat_dir, split).items():
                num_empty += self._add(split, shard, ids)
        if num_empty:
            logger.warning(
                "%s: %d videos have no features and are left out", vfeat_dir, num_empty
            )

    def _add(self, split: Split, shard: int, ids: Sequence[str]) -> int:
        """Notes the places of the videos of a shard. Returns the number of videos without rows.

        Args:
            ids: the videos, in the order of the shard.
        """
        lengths = self._open(split, shard).lengths()
        if len(lengths) != len(ids):
            raise DataError(
                f"{self._vfeat_dir}: shard {shard} of {split.shard_name} must have one row per "
                f"video of the meta file, {len(ids)}, but has {len(lengths)}. Pack the features "
                "again."
            )
        num_empty = 0
        for row, video_id in enumerate(ids):
            if not lengths[row]:
                num_empty += 1
                continue
            if video_id in self._place_of:
                raise DataError(
                    f"{self._vfeat_dir}: every video must be packed once, but {video_id} is "
                    "packed twice. Pack the features again."
                )
            self._place_of[video_id] = (split, shard, row)
        return num_empty

    def _splits(self) -> list[Split]:
        """Returns the splits that are in the folder."""
        splits = []
        for split in (Split.TRAIN, Split.VALID):
            try:
                meta_path(self._vfeat_dir, split)
            except DataError:
                continue
            splits.append(split)
        if not splits:
            raise DataError(
                f"{self._vfeat_dir}: must be a folder of packed features with train_meta.json or "
                "val_meta.json, but has neither. Run `mmpt pack`, or correct the path."
            )
        return splits

    def __getitem__(self, video_id: str) -> np.ndarray:
        split, shard, row = self._place_of[video_id]
        return self._open(split, shard)[row]

    def _open(self, split: Split, shard: int) -> ShardedTensor:
        """Returns the features of a shard."""
        return open_features(self._vfeat_dir, split, shard, width=None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place_of)

    def __len__(self) -> int:
        return len(self._place_of)
