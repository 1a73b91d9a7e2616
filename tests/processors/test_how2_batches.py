import random

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.processors import ShardedHow2VideoRetriMetaProcessor
from tests.support.shard_data import MANY, make_data, make_video


def build(tmp_path, num_videos, videos_per_batch):
    config = make_data(
        tmp_path, num_videos=num_videos, num_video_per_batch=videos_per_batch
    )
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
    for number, ids in enumerate(meta.cands):
        begin = number * videos_per_batch
        assert ids == names(range(begin, begin + videos_per_batch))
    keys, text_keys = meta[num_batches - 1]
    assert keys == text_keys
    assert [key.video_id for key in keys] == meta.cands[-1]
    for key in keys:
        position = int(key.video_id.removeprefix("video"))
        assert (key.shard, key.row) == divmod(position, 8)
        assert key.index == -1
    with pytest.raises(IndexError):
        meta[num_batches]


def test_fewer_videos_than_one_batch_are_an_error(tmp_path):
    message = r"fewer videos than one batch: .*\(4\) must be usable, but 3 are"
    with pytest.raises(DataError, match=message):
        build(tmp_path, 3, 4)


def test_random_candidates_shuffle_the_list_like_the_release(tmp_path):
    meta = build(tmp_path, 20, 2)
    for epoch in (1, 2):
        meta.random_candidates(random.Random(epoch))
        ids = names(range(20))
        random.Random(epoch).shuffle(ids)
        pairs = list(zip(ids[0:16:2], ids[1:16:2], strict=True))
        assert [tuple(batch) for batch in meta.cands] == pairs


def test_set_candidates_accepts_any_batches(tmp_path):
    meta = build(tmp_path, 20, 2)
    batches = [[3, 1, 19], [7], [3, 3]]
    meta.set_candidates(batches)
    assert len(meta) == 3
    assert meta.cands == [names(batch) for batch in batches]
    keys, _ = meta[0]
    assert [key.video_id for key in keys] == names([3, 1, 19])


def test_a_plan_for_another_list_is_an_error(tmp_path):
    meta = build(tmp_path, 20, 2)
    before = meta.cands
    with pytest.raises(DataError, match=r"below 20, .* 2 are not \(first: 20, -1\)"):
        meta.set_candidates([[1, 20], [-1]])
    assert meta.cands == before


def test_features_and_captions_of_a_batch(tmp_path):
    config = make_data(tmp_path).replace(num_video_per_batch=2)
    meta, video, text = (part_cls(config, Split.VALID) for part_cls in MANY)
    keys, text_keys = meta[4]
    features = video(keys)
    captions = text(text_keys)
    assert len(features) == len(captions) == 2
    for number in (0, 1):
        _, want, want_captions = make_video(1008 + number)
        np.testing.assert_array_equal(features[number], want)
        assert captions[number]["cap"] == want_captions["cap"]
