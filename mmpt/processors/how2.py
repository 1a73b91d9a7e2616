"""HowTo100M: which videos, their S3D features and their tokenised captions, one video per item."""

from __future__ import annotations

import numpy as np

from mmpt.batch import Captions, ShardKey, Split
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
from mmpt.processors.shard_layout import open_captions, open_features
from mmpt.processors.tokenizer import special_tokens
from mmpt.processors.video_table import VideoTable, load_video_table, read_id_list


@META_PROCESSORS.register
class How2MetaProcessor(MetaProcessor):
    """The ids of the split's list; both keys are the id."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.ids = read_id_list(self.list_path())

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self.ids[index], self.ids[index]


@META_PROCESSORS.register
class ShardedHow2MetaProcessor(MetaProcessor):
    """The usable videos of the split's list; both keys are (id, index, shard, row)."""

    def __init__(self, config: DatasetConfig, split: Split, videos: VideoTable | None = None):
        """Read the list, unless another processor has read it into `videos`."""
        super().__init__(config, split)
        self.videos = videos or load_video_table(
            self.list_path(), self.need_str("vfeat_dir"), config.tfeat_dir, split, config.max_missing,
            self._vocab_size(),
        )  # fmt: skip

    def _vocab_size(self) -> int | None:
        if self.config.bert_name is None or self.config.tfeat_dir is None:
            return None
        return special_tokens(self.config.bert_name, self.config.use_fast is not False).vocab_size

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order (built anew at each call)."""
        return self.videos.name_list()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[ShardKey, ShardKey]:
        key = self.videos.key(index, index)
        return key, key


@VIDEO_PROCESSORS.register
class ShardedVideoProcessor(VideoReader):
    """Features of a video from `<vfeat_dir>/{train|val}_<shard>`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.vfeat_dir = self.need_str("vfeat_dir")

    def __call__(self, key: ShardKey) -> np.ndarray:
        """Return float [seconds, 512], a view of the mapped file."""
        return open_features(self.vfeat_dir, self.split, key.shard)[key.row]


@TEXT_PROCESSORS.register
class ShardedTextProcessor(TextReader):
    """Captions of a video from `<tfeat_dir>{train|val}_<shard>.startends` and `.caps_ids`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.tfeat_dir = self.need_str("tfeat_dir")

    def __call__(self, key: ShardKey) -> Captions:
        """Return the captions, padding removed.

        Raises:
            DataError: a time is not finite, an id is below -1, or the two files disagree about this video.
        """
        times, ids = open_captions(self.tfeat_dir, self.split, key.shard)
        times_n2, ids_nW = times[key.row], ids[key.row]
        where = f"{times.name}: video {key.video_id} (row {key.row})"
        if len(times_n2) != len(ids_nW):
            raise DataError(
                f"{where} must have as many times as captions, but has {len(times_n2)} and {len(ids_nW)}. "
                "Tokenise this shard again."
            )
        if not np.isfinite(times_n2).all():
            raise DataError(f"{where} must have finite caption times, but has NaN or infinity. Correct its captions.")
        if ids_nW.size and ids_nW.min() < -1:
            raise DataError(
                f"{where} must have word-piece ids of at least -1, but has {ids_nW.min()}. Tokenise it again."
            )
        real_nW = ids_nW >= 0
        ends = np.cumsum(real_nW.sum(axis=1)).tolist()
        flat = ids_nW[real_nW].tolist()
        return Captions(
            start=times_n2[:, 0].tolist(),
            end=times_n2[:, 1].tolist(),
            cap=[flat[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)] if ends else [],
        )
