"""HowTo100M, one video per item: the list of videos, S3D features and tokenised captions."""

import numpy as np

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors import base
from mmpt.processors.tokenizer import special_tokens
from mmpt.shards.layout import open_captions, open_features, times_stem
from mmpt.shards.video_table import VideoTable, load_video_table, read_id_list


@base.META_PROCESSORS.register
class How2MetaProcessor(base.MetaProcessor):
    """The videos of the split's list. Both keys are the id."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.items = [(name, name) for name in read_id_list(self.list_path())]


@base.META_PROCESSORS.register
class ShardedHow2MetaProcessor(base.MetaProcessor):
    """The usable videos of the split's list. Both keys are (id, index, shard, row)."""

    def __init__(self, config: DatasetConfig, split: Split, videos: VideoTable | None = None):
        """Reads the list.

        Args:
            videos: the table of a processor that has read the list already.
        """
        super().__init__(config, split)
        if videos is None:
            vocab_size = None  # of BERT, if captions are read
            if config.bert_name is not None and config.tfeat_dir is not None:
                vocab_size = special_tokens(config.bert_name, config.use_fast).vocab_size
            self.need_str("vfeat_dir")
            videos = load_video_table(self.list_path(), config, split, vocab_size)
        self.videos = videos

    @property
    def video_ids(self) -> list[str]:
        """All ids, in list order. Each call makes a new list."""
        return self.videos.name_list()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> tuple[ShardKey, ShardKey]:
        key = self.videos.key(index, index)
        return key, key


@base.VIDEO_PROCESSORS.register
class ShardedVideoProcessor(base.VideoReader):
    """A reader of features from `<vfeat_dir>/{train|val}_<shard>`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.vfeat_dir = self.need_str("vfeat_dir")

    def __call__(self, key: ShardKey) -> np.ndarray:
        """Returns float [seconds, 512], a view of the mapped file."""
        return open_features(self.vfeat_dir, self.split, key.shard)[key.row]


@base.TEXT_PROCESSORS.register
class ShardedTextProcessor(base.TextReader):
    """A reader of captions from `<tfeat_dir>{train|val}_<shard>.startends` and `.caps_ids`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.tfeat_dir = self.need_str("tfeat_dir")

    def __call__(self, key: ShardKey) -> Captions:
        """Returns the captions without their padding.

        Raises:
            DataError: a time is not finite, an id is below -1, or the two files disagree about this
                video.
        """
        all_times, all_ids = open_captions(self.tfeat_dir, self.split, key.shard)
        times_n2, ids_nW = all_times[key.row], all_ids[key.row]
        problem = ""
        if len(times_n2) != len(ids_nW):
            counts = f"{len(times_n2)} and {len(ids_nW)}"
            problem = f"as many times as captions, but has {counts}. Tokenise this shard again."
        elif not np.isfinite(times_n2).all():
            problem = "finite caption times, but has NaN or infinity. Correct its captions."
        elif ids_nW.min(initial=0) < -1:
            problem = f"word-piece ids of at least -1, but has {ids_nW.min()}. Tokenise it again."
        if problem:
            stem = times_stem(self.tfeat_dir, self.split, key.shard)
            raise DataError(f"{stem}: video {key.video_id} (row {key.row}) must have {problem}")
        start, end = times_n2.T.tolist()
        return Captions(start=start, end=end, cap=[ids[ids >= 0].tolist() for ids in ids_nW])
