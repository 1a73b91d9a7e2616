import random

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from tests.support.shard_data import MANY, make_data, make_video


def build(tmp_path, num_videos, videos_per_batch):
    config = make_data(tmp_path, num_videos=num_videos, num_video_per_batch=videos_per_batch)
    return ShardedHow2VideoRetriMetaProcessor(config, Split.TRAIN)


def names(positions):
    return [f"video{position:04d}" for position in positions]


@pytest.mark.parametrize(
    ("num_videos", "videos_per_batch", "num_batches"),
    [(16, 2, 8), (31, 2, 8), (33, 2, 16), (15, 2, 7), (9, 4, 2), (4, 4, 1)],
)
def test_batches_follow_the_list(tmp_path, num_videos, videos_per_batch, num_batches):
    meta = build(tmp_path, num_videos, videos_per_batch)
    assert len(meta) == num_batches
    assert meta.cands == [
        names(range(batch * videos_per_batch, (batch + 1) * videos_per_batch))
        for batch in range(num_batches)
    ]
    keys, text_keys = meta[num_batches - 1]
    assert keys == text_keys
    assert [key.video_id for key in keys] == meta.cands[-1]
    assert all(key.index == -1 and key.shard * 8 + key.row == int(key.video_id[5:]) for key in keys)
    with pytest.raises(IndexError):
        meta[num_batches]


def test_fewer_videos_than_one_batch(tmp_path):
    with pytest.raises(
        DataError, match=r"fewer videos than one batch: .*\(4\) must be usable, but 3 are"
    ):
        build(tmp_path, 3, 4)


def test_random_candidates_shuffle_the_list_like_the_release(tmp_path):
    meta = build(tmp_path, 20, 2)
    for epoch in (1, 2):
        meta.random_candidates(random.Random(epoch))
        ids = names(range(20))
        random.Random(epoch).shuffle(ids)
        assert meta.cands == [ids[2 * batch : 2 * batch + 2] for batch in range(8)]


def test_set_candidates_takes_any_batches(tmp_path):
    meta = build(tmp_path, 20, 2)
    batches = [[3, 1, 19], [7], [3, 3]]
    meta.set_candidates(batches)
    assert len(meta) == 3
    assert meta.cands == [names(batch) for batch in batches]
    assert [key.video_id for key in meta[0][0]] == names(batches[0])


def test_a_plan_of_another_list(tmp_path):
    meta = build(tmp_path, 20, 2)
    before = meta.cands
    with pytest.raises(DataError, match=r"below 20, .* 2 are not \(first: 20, -1\)"):
        meta.set_candidates([[1, 20], [-1]])
    assert meta.cands == before


def test_features_and_captions_of_a_batch(tmp_path):
    config = make_data(tmp_path).replace(num_video_per_batch=2)
    meta, video, text = (part(config, Split.VALID) for part in MANY)
    keys, text_keys = meta[4]
    for number, feature, captions in zip((8, 9), video(keys), text(text_keys), strict=True):
        _, want, want_captions = make_video(1000 + number)
        np.testing.assert_array_equal(feature, want)
        assert captions["cap"] == want_captions["cap"]
