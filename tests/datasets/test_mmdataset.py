"""Items depend only on (seed, epoch, index), not on the workers."""

import itertools
import random

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.datasets import MMDataset, collate
from mmpt.processors import DSAligner, VariedLenAligner, VideoRetriOverlappedAligner
from tests.support.shard_data import MANY, ONE, make_data


def data_set(config, classes, split=Split.TRAIN, seed=1):
    parts = [part_cls(config, split) for part_cls in classes]
    return MMDataset(*parts, seed=seed)


def batch_data(config, seed=1):
    return data_set(config, (*MANY, VideoRetriOverlappedAligner), seed=seed)


def video_data(config, split=Split.TRAIN):
    return data_set(config, (*ONE, VariedLenAligner), split)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


def same(one, other):
    """Returns True if two items have the same keys, tensors and other values."""
    if one.keys() != other.keys():
        return False
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            is_same = torch.equal(value, other[name])
        else:
            is_same = value == other[name]
        if not is_same:
            return False
    return True


def test_an_item_depends_only_on_its_seed_epoch_and_index(config):
    data = batch_data(config)
    items = {}
    for epoch, index in itertools.product((0, 1), range(len(data))):
        items[epoch, index] = data.item(index, epoch)
    again = batch_data(config)
    random.seed(3)
    for epoch, index in reversed(items):
        assert same(again.item(index, epoch), items[epoch, index])
    assert not same(items[0, 0], items[1, 0])
    assert items[0, 4]["idx"] == 4


def test_another_seed_gives_other_items(config):
    one = batch_data(config, seed=1).item(0, 0)
    other = batch_data(config, seed=2).item(0, 0)
    assert not same(one, other)


def test_the_index_operator_gives_items_of_the_epoch_that_is_set(config):
    data = batch_data(config)
    data.set_epoch(1)
    assert same(data[2], data.item(2, 1))


def test_the_test_split_does_not_depend_on_the_epoch(config):
    test = video_data(config.replace(test_path=config.val_path), Split.TEST)
    assert same(test.item(3, 0), test.item(3, 7))
    train = video_data(config)
    assert not same(train.item(3, 0), train.item(3, 7))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_the_number_of_workers_changes_nothing(config, num_workers):
    data = batch_data(config)
    data.set_epoch(2)
    loader = DataLoader(
        data, batch_size=1, collate_fn=data.collate, num_workers=num_workers
    )
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
    state = random.getstate()
    torch_state = torch.get_rng_state()
    first = data.item(0, 0)
    assert random.getstate() == state
    assert torch.equal(torch.get_rng_state(), torch_state)
    random.seed(6)
    assert same(data.item(0, 0), first)


def test_a_batch_has_one_leading_axis_of_clips(config):
    data = batch_data(config)
    batch = data.collate([data.item(0, 0)])
    del batch["video_id"]
    found = {name: (*value.shape, value.dtype) for name, value in batch.items()}
    assert found == {
        "caps": (12, 18, torch.int64),
        "cmasks": (12, 18, torch.bool),
        "vfeats": (12, 6, 512, torch.float16),
        "vmasks": (12, 6, torch.bool),
        "video_start": (12, torch.int64),
        "video_end": (12, torch.int64),
        "text_start": (12, torch.int64),
        "text_end": (12, torch.int64),
        "idx": (1, torch.int64),
    }


def test_rows_of_a_batch_are_ordered_by_video_and_then_by_clip(config):
    data = video_data(config)
    items = [data.item(index, 0) for index in range(5)]
    batch = data.collate(items)
    assert batch["vfeats"].shape == (15, 6, 512)
    assert batch["video_id"] == [
        "video0000",
        "video0001",
        "video0002",
        "video0003",
        "video0004",
    ]
    assert batch["idx"].tolist() == [0, 1, 2, 3, 4]
    for video, clip in itertools.product(range(5), range(3)):
        row = 3 * video + clip
        for name in ("caps", "vfeats", "video_start"):
            assert torch.equal(batch[name][row], items[video][name][clip])
    # Feature [t, 1] is the number of the video.
    numbers = batch["vfeats"][:, 0, 1]
    assert numbers.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_items_without_an_axis_of_clips_are_stacked(config):
    data = data_set(config, (*ONE, DSAligner))
    item = {"caps": torch.ones(4, 8), "vfeats": torch.ones(4, 8, 512)}
    batch = data.collate([item])
    assert batch["caps"].shape == (1, 4, 8)
    assert batch["vfeats"].shape == (1, 4, 8, 512)


@pytest.mark.parametrize("join", [False, True])
def test_an_empty_list_of_items_makes_an_empty_batch(join):
    assert collate([], join=join) == {}


@pytest.mark.parametrize("join", [False, True])
def test_keys_whose_first_value_is_none_are_left_out(join):
    batch = collate([{"a": None, "b": 1}, {"a": 3, "b": 2}], join=join)
    assert list(batch) == ["b"]
    assert batch["b"].tolist() == [1, 2]


@pytest.mark.parametrize(("join", "shape"), [(False, (2, 3, 4)), (True, (6, 4))])
def test_a_loader_worker_shares_the_tensors_of_a_batch(monkeypatch, join, shape):
    monkeypatch.setattr("mmpt.datasets.mmdataset.get_worker_info", lambda: "a worker")
    items = [{"caps": torch.ones(3, 4)}, {"caps": torch.zeros(3, 4)}]
    batch = collate(items, join=join)
    assert batch["caps"].shape == shape
    assert batch["caps"].is_shared()
