"""Shard files equal the recorded ones byte for byte, and recorded ones read back."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Captions, ShardKey, Split
from mmpt.config.schema import DatasetConfig
from mmpt.processors.how2 import ShardedTextProcessor
from mmpt.shards.shardedtensor import ShardedTensor
from mmpt.shards.writer import write_caption_shard

GOLDEN = Path(__file__).parent / "golden"
PREFIX = "cap.tinybert."
SHARDS = [
    (Split.TRAIN, 0, ["vidA", "vidB", "vidC"]),
    (Split.TRAIN, 1, ["vidD", "vidE"]),
    (Split.VALID, 0, ["vidF"]),
]


@pytest.fixture
def golden():
    with np.load(GOLDEN / "sharded_tensor.npz") as arrays:
        return dict(arrays)


def test_from_list_and_files_equal_the_recorded_ones(golden, tmp_path):
    shard = ShardedTensor.from_list([golden[f"item{i}"] for i in range(4)])
    shard.save(tmp_path / "train_0")
    recorded = json.loads((GOLDEN / "sharded_tensor.json").read_text())
    for name, array in (
        ("train_0_data.npy", golden["data"]),
        ("train_0_starts.npy", golden["starts"]),
    ):
        content = (tmp_path / name).read_bytes()
        header = recorded[name]["npy_header"].encode("latin-1")
        assert len(content) == recorded[name]["bytes"]
        assert content.startswith(header)
        assert content[len(header) : -array.nbytes].strip(b" ") == b"\n"
        assert content[-array.nbytes :] == array.tobytes()
    assert shard.lengths().tolist() == golden["lengths"].tolist()


@pytest.mark.parametrize("mode", ["r", None])
def test_recorded_arrays_read_back(golden, tmp_path, mode):
    np.save(tmp_path / "train_0_data.npy", golden["data"])
    np.save(tmp_path / "train_0_starts.npy", golden["starts"])
    shard = ShardedTensor.load(tmp_path / "train_0", mmap_mode=mode)
    assert len(shard) == 4
    for i in range(4):
        np.testing.assert_array_equal(shard[i], golden[f"item{i}"])


def recorded_captions():
    raw = json.loads((GOLDEN / "dedup.json").read_text())["raw"]
    ids = json.loads((GOLDEN / "pretokenized.json").read_text())["token_ids_use_fast_True"]
    return {
        name: Captions(start=raw[name]["start"], end=raw[name]["end"], cap=ids[name])
        for name in raw
    }


def test_caption_shards_equal_the_recorded_ones(tmp_path):
    captions = recorded_captions()
    with np.load(GOLDEN / "pretokenized.npz") as recorded:
        for split, shard, names in SHARDS:
            write_caption_shard(tmp_path / PREFIX, split, shard, [captions[name] for name in names])
        assert len(recorded.files) == 12
        for name in recorded.files:
            ours = np.load(tmp_path / f"{name}.npy")
            assert ours.dtype == recorded[name].dtype
            np.testing.assert_array_equal(ours, recorded[name])


def test_recorded_caption_shards_read_back(tmp_path):
    with np.load(GOLDEN / "pretokenized.npz") as recorded:
        for name in recorded.files:
            np.save(tmp_path / f"{name}.npy", recorded[name])
    captions = recorded_captions()
    for split, shard, names in SHARDS:
        read = ShardedTextProcessor(DatasetConfig(tfeat_dir=f"{tmp_path}/{PREFIX}"), split)
        for row, name in enumerate(names):
            found = read(ShardKey(name, row, shard, row))
            assert found["cap"] == [ids[:32] for ids in captions[name]["cap"]]
            for field in ("start", "end"):
                assert found[field] == np.array(captions[name][field], np.float32).tolist()
