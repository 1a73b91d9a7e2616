"""Batches that a worker hands over in files: as they were, in few files, and none written over before it is read."""

import multiprocessing
import os
import pickle
import resource
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from torch.utils.data import DataLoader

from mmpt.batch import Split
from mmpt.datasets import MMDataset, collate, handover
from mmpt.datasets.handover import Parcel, hand_over
from mmpt.errors import DataError
from mmpt.processors import (
    ShardedHow2VideoRetriMetaProcessor,
    ShardedVideoRetriTextProcessor,
    ShardedVideoRetriVideoProcessor,
    VideoRetriOverlappedAligner,
)
from process_memory import held_files
from tests.processors.shard_data import make_data

ODD = {
    "number": torch.tensor(2.5, dtype=torch.float64),
    "nothing": torch.empty(0, 3),
    "across": torch.arange(12).reshape(3, 4).T,
    "repeated": torch.tensor([True, False]).expand(3, 2),
    "half": torch.tensor([[1.0, float("nan")]], dtype=torch.float16),
    "video_id": [("a", "b")],
    "inside": {"tensor": torch.ones(2)},
    "learned": torch.ones(2, requires_grad=True),
    "conjugate": torch.tensor([1 + 2j]).conj(),
    "last": torch.arange(3),
}


def receive(parcel: Parcel) -> dict:
    return pickle.loads(ForkingPickler.dumps(parcel))


@pytest.fixture(autouse=True)
def own_files(monkeypatch):
    files: list[int] = []
    monkeypatch.setattr(handover, "_files", files)
    yield files
    for file in files:
        os.close(file)


def test_any_batch_arrives_as_it_was():
    loader = DataLoader([0], batch_size=1, collate_fn=lambda items: hand_over(ODD), num_workers=1, timeout=60)
    (batch,) = loader
    assert list(batch) == list(ODD)
    for name, value in ODD.items():
        if isinstance(value, torch.Tensor):
            assert (batch[name].shape, batch[name].dtype) == (value.shape, value.dtype)
            assert torch.equal(batch[name].nan_to_num(7), value.nan_to_num(7))
    assert batch["learned"].requires_grad
    assert batch["video_id"] == [("a", "b")]
    assert torch.equal(batch["inside"]["tensor"], torch.ones(2))


def test_a_file_is_written_again_only_when_it_has_been_read(own_files):
    numbers = [{"x": torch.full((5,), number)} for number in range(4)]
    first, second = Parcel(numbers[0]), Parcel(numbers[1])
    kept = receive(first)
    third, fourth = Parcel(numbers[2]), Parcel(numbers[3])
    assert len(own_files) == 3  # the third went where the first was
    assert [receive(parcel)["x"][0].item() for parcel in (fourth, second, third)] == [3, 1, 2]
    assert kept["x"].tolist() == [0] * 5


def test_a_smaller_batch_and_a_larger_one_use_the_same_file(own_files):
    for size in (1000, 3, 5000):
        assert receive(Parcel({"x": torch.arange(size)}))["x"].tolist() == list(range(size))
    assert len(own_files) == 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_worker_has_a_file_for_each_batch_under_way(tmp_path):
    config = make_data(tmp_path)
    parts = (ShardedHow2VideoRetriMetaProcessor, ShardedVideoRetriVideoProcessor, ShardedVideoRetriTextProcessor)
    meta, video, text = (part(config, Split.TRAIN) for part in parts)
    data = MMDataset(meta, video, text, VideoRetriOverlappedAligner(config, Split.TRAIN), seed=1)
    order = [[index % len(data)] for index in range(24)]
    loader = iter(
        DataLoader(data, batch_sampler=order, collate_fn=collate, num_workers=1, prefetch_factor=3, timeout=60)
    )
    batches = [next(loader) for _ in range(20)]
    (worker,) = multiprocessing.active_children()
    assert 1 <= len(held_files(worker.pid, "batch")) <= 3
    batches += loader
    for (index,), batch in zip(order, batches, strict=True):  # all are kept, and none was written over
        want = collate([data.item(index, 0)])
        assert batch.keys() == want.keys()
        assert all(torch.equal(batch[name], want[name]) for name in want if name != "video_id")


def test_no_tensor_goes_by_new_shared_memory(monkeypatch):
    def share(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", share)
    monkeypatch.setattr(handover, "DupFd", lambda file: file)
    batch = {"caps": torch.arange(1000), "idx": torch.tensor([3])}
    assert len(ForkingPickler.dumps(hand_over(batch))) < 1000
    with pytest.raises(NotImplementedError):
        ForkingPickler.dumps(batch)


def test_torch_takes_what_the_files_cannot(monkeypatch):
    batch = {"x": torch.zeros(10)}
    assert isinstance(hand_over(batch), Parcel)
    with monkeypatch.context() as context:
        context.setattr(handover, "MAX_BYTES", 39)
        assert hand_over(batch) is batch
    many = {str(number): torch.zeros(1) for number in range(1024)}
    assert hand_over(many) is many
    monkeypatch.delattr(os, "memfd_create")
    assert hand_over(batch) is batch


def collate_into_small_files(items: list) -> object:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    return hand_over({"x": torch.zeros(10_000)})


def test_a_batch_without_room_is_an_error_not_a_hang():
    loader = DataLoader([0], batch_size=1, collate_fn=collate_into_small_files, num_workers=1, timeout=60)
    with pytest.raises(DataError, match=r"a batch of 40,000 bytes: File too large\. .*`ulimit"):
        next(iter(loader))
