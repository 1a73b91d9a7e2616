"""Evaluation on data like HowTo100M: videos of the validation shards, and clips with a sentence.

The file is {"format": 1, "videos": [{"id": str, "clips": [{"start": s, "end": s, "text": str},
...]}, ...]}, start and end in whole seconds, end exclusive, the clips of a video in time order.
"""

from collections import defaultdict
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.aligner import video_id_of
from mmpt.processors.base import (
    META_PROCESSORS,
    VIDEO_PROCESSORS,
    MetaProcessor,
    VideoReader,
)
from mmpt.processors.downstream import check_listed_once
from mmpt.processors.sampling import rows_between
from mmpt.processors.window_aligner import num_seconds
from mmpt.shards.shardedtensor import open_features, read_shard_meta
from mmpt.utils.validation import NotBlank, read_json_as

ClipKey = tuple[str, int, int]  # video id, start, end (seconds, exclusive)


class _Clip(BaseModel):
    start: int
    end: int
    text: NotBlank


class _Video(BaseModel):
    id: str
    clips: list[_Clip]


class _File(BaseModel):
    format: Literal[1]
    videos: Annotated[list[_Video], Field(min_length=1)]


def read_clips(path: str) -> list[tuple[ClipKey, str]]:
    """Returns ((id, start, end), text) of every clip, video by video.

    Raises:
        DataError: another layout, a video listed twice, or clips that are empty or out of order.
    """
    remedy = (
        'It must be {"format": 1, "videos": [{"id": ..., "clips": [{"start": s, "end": s, "text": '
        "...}]}]}, in whole seconds. Correct it."
    )
    videos = read_json_as(path, _File, remedy).videos
    check_listed_once(path, "video", (video.id for video in videos))
    items: list[tuple[ClipKey, str]] = []
    for video in videos:
        begin = 0
        for clip in video.clips:
            if not begin <= clip.start < clip.end:
                raise DataError(
                    f"{path}: video {video.id}: clips must be in time order and not empty, but "
                    f"[{clip.start}, {clip.end}) follows a clip that starts at {begin}. Sort and "
                    "correct them."
                )
            key = video.id, clip.start, clip.end
            items.append((key, clip.text))
            begin = clip.start
    return items


@META_PROCESSORS.register
class How2ClipMetaProcessor(MetaProcessor):
    """The clips of the file. A clip's key is (id, start, end), and its text key is its sentence."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.items = read_clips(self.list_path())


@META_PROCESSORS.register
class How2FullVideoMetaProcessor(MetaProcessor):
    """The videos of the file. A video's key is its id, and its text key is the list of its
    sentences in time order.
    """

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        texts: dict[str, list[str]] = defaultdict(list)
        for (video, _, _), text in read_clips(self.list_path()):
            texts[video].append(text)
        self.items = list(texts.items())


@VIDEO_PROCESSORS.register
class How2VideoProcessor(VideoReader):
    """A reader of whole videos from the `val` shards in `vfeat_dir`."""

    def __init__(self, config: DatasetConfig, split: Split):
        super().__init__(config, split)
        self.vfeat_dir = self.need_str("vfeat_dir")
        self.where = {}
        for shard, ids in read_shard_meta(self.vfeat_dir, Split.VALID).items():
            for row, video_id in enumerate(ids):
                self.where[video_id] = shard, row

    def __call__(self, key: Any) -> np.ndarray:
        """Returns float [rows, width] for a video id that `has` knows."""
        shard, row = self.where[key]
        width = self.config.feature_dim
        return open_features(self.vfeat_dir, Split.VALID, shard, width)[row]

    def has(self, key: Any) -> bool:
        """Returns True if the video of an id, or of a key whose first element is one, is packed."""
        return video_id_of(key) in self.where


@VIDEO_PROCESSORS.register
class How2ClipVideoProcessor(How2VideoProcessor):
    """A reader of the features from start to end of a clip from the `val` shards in `vfeat_dir`."""

    def __call__(self, key: ClipKey) -> np.ndarray:
        """Returns float [rows, width].

        Raises:
            DataError: the clip ends after the video.
        """
        video_id, start_s, end_s = key
        feature = super().__call__(video_id)
        fps = self.config.feature_fps
        length_s = num_seconds(len(feature), fps)
        if end_s > length_s:
            raise DataError(
                f"video {video_id}: a clip must end within the video's {length_s} s, but one "
                f"ends at {end_s}. Correct `dataset.test_path`."
            )
        start, end = rows_between(start_s, end_s, fps)
        return feature[start:end]
