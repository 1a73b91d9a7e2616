"""HowTo100M, one video per item: the list of videos, S3D features and tokenised captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmpt.batch import ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.base import (
    META_PROCESSORS,
    TEXT_PROCESSORS,
    VIDEO_PROCESSORS,
    MetaProcessor,
    TextReader,
    VideoReader,
)
from mmpt.processors.caption_rows import CaptionRows
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.layout import open_captions, open_features, times_stem
from mmpt.shards.video_table import VideoTable, load_video_table, read_id_list


@META_PROCESSORS.register
class How2MetaProcessor(MetaProcessor):
    """The ids of the split's list. Both keys are the id."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.ids = read_id_list(self.list_path())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.ids[index], self.ids[index]


@META_PROCESSORS.register
class ShardedHow2MetaProcessor(MetaProcessor):
    """The usable videos of the split's list. Both keys are (id, index, shard, row)."""

    def __init__(self, config: DatasetConfig, split: Split, videos: VideoTable | None = None):
        """Reads the list.

        Args:
            videos: the table of a processor that has read the list already.
        """
        super().__init__(config, split)
        self.videos = videos or load_video_table(
            self.list_path(),
            self.need_str("vfeat_dir"),
            config.tfeat_dir,
            split,
            config.max_missing,
            self._vocab_size(),
        )

    def _vocab_size(self) -> int | None:
        """Returns the size of BERT's vocabulary; None if no captions are read."""
        if self.config.bert_name is None or self.config.tfeat_dir is None:
            return None
        return special_tokens(self.config.bert_name, self.config.use_fast is not False).vocab_size

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order. Each call makes a new list."""
        return self.videos.name_list()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[ShardKey, ShardKey]:
        key = self.videos.key(index, index)
        return key, key


@VIDEO_PROCESSORS.register
class ShardedVideoProcessor(VideoReader):
    """A reader of features from `<vfeat_dir>/{train|val}_<shard>`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.vfeat_dir = self.need_str("vfeat_dir")

    def __call__(self, key: ShardKey) -> np.ndarray:
        """Returns float [seconds, 512], a view of the mapped file."""
        return open_features(self.vfeat_dir, self.split, key.shard)[key.row]


@TEXT_PROCESSORS.register
class ShardedTextProcessor(TextReader):
    """A reader of captions from `<tfeat_dir>{train|val}_<shard>.startends` and `.caps_ids`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.tfeat_dir = self.need_str("tfeat_dir")

    def __call__(self, key: ShardKey) -> CaptionRows:
        """Returns the captions without their padding.

        Raises:
            DataError: a time is not finite, an id is below -1, or the two files disagree about this
                video.
        """
        return self.read([key])[0]

    def read(self, keys: Sequence[ShardKey]) -> list[CaptionRows]:
        """Returns the captions of every key. They are checked and unpacked together.

        Raises:
            DataError: as for one key.
        """
        times: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        for key in keys:
            all_times, all_ids = open_captions(self.tfeat_dir, self.split, key.shard)
            times.append(all_times[key.row])
            ids.append(all_ids[key.row])
            if len(times[-1]) != len(ids[-1]):
                raise DataError(
                    f"{self._where(key)} must have as many times as captions, but has "
                    f"{len(times[-1])} and {len(ids[-1])}. Tokenise this shard again."
                )
        times_n2, ids_nW = np.concatenate(times), np.concatenate(_same_width(ids))
        if not np.isfinite(times_n2).all() or ids_nW.min(initial=0) < -1:
            for key, its_times, its_ids in zip(keys, times, ids, strict=True):
                self._check(key, its_times, its_ids)
        return CaptionRows.unpack([len(rows) for rows in ids], times_n2, ids_nW)

    def _check(self, key: ShardKey, times_n2: np.ndarray, ids_nW: np.ndarray) -> None:
        """Raises DataError if a time or an id of this video is damaged."""
        if not np.isfinite(times_n2).all():
            raise DataError(
                f"{self._where(key)} must have finite caption times, but has NaN or infinity. "
                "Correct its captions."
            )
        if ids_nW.min(initial=0) < -1:
            raise DataError(
                f"{self._where(key)} must have word-piece ids of at least -1, but has "
                f"{ids_nW.min()}. Tokenise it again."
            )

    def _where(self, key: ShardKey) -> str:
        """Returns the file and the video, for messages."""
        stem = times_stem(self.tfeat_dir, self.split, key.shard)
        return f"{stem}: video {key.video_id} (row {key.row})"


def _same_width(ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns ids padded to one width: shards may be packed with different numbers of slots."""
    width = max(rows.shape[1] for rows in ids)
    padded = []
    for rows in ids:
        missing = width - rows.shape[1]
        if missing:
            rows = np.pad(rows, [(0, 0), (0, missing)], constant_values=-1)
        padded.append(rows)
    return padded
