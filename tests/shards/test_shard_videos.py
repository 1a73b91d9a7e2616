"""`ShardVideos` yields the features of every packed video, and refuses folders without shards."""

import numpy as np
import pytest

from mmpt.batch import Captions, Split
from mmpt.errors import DataError
from mmpt.shards.shard_videos import ShardVideos
from mmpt.shards.shardedtensor import write_shard_meta
from mmpt.shards.writer import write_shards
from tests.support.shard_data import make_video


def write(folder, split, numbers, empty=()):
    videos = []
    for number in numbers:
        name, features, captions = make_video(number)
        if number in empty:
            features = features[:0]
            captions = Captions(start=[], end=[], cap=[])
        videos.append((name, features, captions))
    write_shards(folder, folder / "cap.tiny.", split, videos, 2)


def test_every_video_has_its_features(tmp_path, caplog):
    write(tmp_path, Split.TRAIN, [1, 2, 3], empty=[2])
    write(tmp_path, Split.VALID, [4])
    videos = ShardVideos(tmp_path)
    assert list(videos) == ["video0001", "video0003", "video0004"]
    assert len(videos) == 3
    for number in (1, 3, 4):
        name, features, _ = make_video(number)
        np.testing.assert_array_equal(videos[name], features)
    assert "1 videos have no features and are left out" in caplog.text


def test_mistakes_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"must be a folder of packed features"):
        ShardVideos(tmp_path)
    write(tmp_path, Split.TRAIN, [1, 2])
    write(tmp_path, Split.VALID, [2])
    with pytest.raises(DataError, match="packed once, but video0002 is packed twice"):
        ShardVideos(tmp_path)
    write_shard_meta(tmp_path, Split.VALID, [["a", "b"]])
    with pytest.raises(DataError, match="shard 0 of val must have one row per video"):
        ShardVideos(tmp_path)


def test_features_of_any_width_are_read(tmp_path):
    name, features, captions = make_video(1)
    narrow = features[:, :24]
    videos = [(name, narrow, captions)]
    write_shards(tmp_path, tmp_path / "cap.tiny.", Split.TRAIN, videos, 2)
    np.testing.assert_array_equal(ShardVideos(tmp_path)[name], narrow)
