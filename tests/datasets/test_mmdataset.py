"""Items depend on (seed, epoch, index) alone, whatever the workers."""

import random

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.datasets import MMDataset, collate
from mmpt.processors import DSAligner, VariedLenAligner, VideoRetriOverlappedAligner
from tests.support.shard_data import MANY, ONE, make_data


def batch_data(config, seed=1):
    parts = (part(config, Split.TRAIN) for part in (*MANY, VideoRetriOverlappedAligner))
    return MMDataset(*parts, seed=seed)


def video_data(config, split=Split.TRAIN):
    parts = (part(config, split) for part in (*ONE, VariedLenAligner))
    return MMDataset(*parts, seed=1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def test_an_item_is_its_seed_epoch_and_index(config):
    data = batch_data(config)
    items = {
        (epoch, index): data.item(index, epoch) for epoch in (0, 1) for index in range(len(data))
    }
    again = batch_data(config)
    random.seed(3)
    for epoch, index in reversed(list(items)):
        assert same(again.item(index, epoch), items[epoch, index])
    assert not same(items[0, 0], items[1, 0])
    assert not same(batch_data(config, seed=2).item(0, 0), items[0, 0])
    again.set_epoch(1)
    assert same(again[2], items[1, 2])
    assert items[0, 4]["idx"] == 4


def test_the_test_split_does_not_know_epochs(config):
    test = video_data(config.replace(test_path=config.val_path), Split.TEST)
    assert same(test.item(3, 0), test.item(3, 7))
    train = video_data(config)
    assert not same(train.item(3, 0), train.item(3, 7))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_number_of_workers_changes_nothing(config, num_workers):
    data = batch_data(config)
    data.set_epoch(2)
    loader = DataLoader(data, batch_size=1, collate_fn=data.collate, num_workers=num_workers)
    batches = list(loader)
    assert len(batches) == len(data) == 5
    for index, batch in enumerate(batches):
        want = data.item(index, 2)
        assert batch["idx"].tolist() == [index]
        assert batch["video_id"] == [(name,) for name in want["video_id"]]
        for name in ("caps", "cmasks", "vfeats", "vmasks", "video_start", "text_end"):
            assert torch.equal(batch[name], want[name])


def test_no_global_generator_is_read_or_written(config):
    data = batch_data(config)
    random.seed(5)
    torch.manual_seed(5)
    state, torch_state = random.getstate(), torch.get_rng_state()
    first = data.item(0, 0)
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), torch_state)
    random.seed(6)
    assert same(data.item(0, 0), first)


def test_a_batch_has_one_leading_axis_of_clips(config):
    data = batch_data(config)
    batch = data.collate([data.item(0, 0)])
    found = {
        name: (*value.shape, value.dtype) for name, value in batch.items() if name != "video_id"
    }
    spans = [f"{kind}_{end}" for kind in ("video", "text") for end in ("start", "end")]
    assert found == {
        "caps": (12, 18, torch.int64),
        "cmasks": (12, 18, torch.bool),
        "vfeats": (12, 6, 512, torch.float16),
        "vmasks": (12, 6, torch.bool),
        **dict.fromkeys(spans, (12, torch.int64)),
        "idx": (1, torch.int64),
    }


def test_clip_c_of_video_v_is_row_v_clips_plus_c(config):
    data = video_data(config)
    items = [data.item(index, 0) for index in range(5)]
    batch = data.collate(items)
    assert batch["vfeats"].shape == (15, 6, 512)
    assert batch["video_id"] == [f"video{index:04d}" for index in range(5)]
    assert batch["idx"].tolist() == list(range(5))
    for video, item in enumerate(items):
        for clip in range(3):
            for name in ("caps", "vfeats", "video_start"):
                assert torch.equal(batch[name][3 * video + clip], item[name][clip])
    # Feature [t, 1] is the number of the video.
    assert batch["vfeats"][:, 0, 1].tolist() == [video for video in range(5) for _ in range(3)]


def test_items_without_an_axis_of_clips_are_stacked(config):
    data = MMDataset(
        *(part(config, Split.TRAIN) for part in ONE), DSAligner(config, Split.TRAIN), seed=1
    )
    item = {"caps": torch.ones(4, 8), "vfeats": torch.ones(4, 8, 512)}
    assert data.collate([item])["caps"].shape == (1, 4, 8)
    assert data.collate([]) == batch_data(config).collate([]) == {}


def test_collate_leaves_out_none_and_takes_nothing():
    assert collate([]) == {}
    assert collate([{"a": None, "b": 1}, {"a": None, "b": 2}])["b"].tolist() == [1, 2]
    assert list(collate([{"a": None, "b": 1}])) == ["b"]
