"""How2's lists and shards: every video is read back, and other meta files are errors."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Captions, Split
from mmpt.errors import DataError
from mmpt.processors import (
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
    ShardedVideoProcessor,
)
from mmpt.shards.shardedtensor import ShardedTensor, read_shard_meta, write_shard_meta
from mmpt.shards.writer import write_caption_shard, write_shards
from tests.support.shard_data import make_data, make_video

META = "feat/train_meta"


@pytest.fixture
def config(tmp_path):
    return make_data(tmp_path)


def meta_of(config, split=Split.TRAIN):
    return ShardedHow2MetaProcessor(config, split)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_every_video_is_read_back(config, split):
    meta = meta_of(config, split)
    video = ShardedVideoProcessor(config, split)
    text = ShardedTextProcessor(config, split)
    first = 0 if split is Split.TRAIN else 1000
    assert len(meta) == len(meta.video_ids) == 20
    for index in range(20):
        name, features, captions = make_video(first + index)
        assert meta.video_ids[index] == name
        key, text_key = meta[index]
        assert key == text_key == (name, index, index // 8, index % 8)
        np.testing.assert_array_equal(video(key), features)
        read = text(text_key)
        assert read["cap"] == captions["cap"]
        assert read["start"] == np.array(captions["start"], np.float32).tolist()
        assert read["end"] == np.array(captions["end"], np.float32).tolist()
    with pytest.raises(IndexError):
        meta[20]


def test_the_test_split_reads_the_val_shards(config):
    meta = meta_of(config.replace(test_path=config.val_path), Split.TEST)
    key, _ = meta[3]
    features = ShardedVideoProcessor(config, Split.TEST)(key)
    assert features[0, 1] == 1003


def test_the_released_pickle_is_read_if_there_is_no_json_file(config, tmp_path):
    want = [meta_of(config)[i] for i in range(20)]
    shards = read_shard_meta(config.vfeat_dir, Split.TRAIN)
    (tmp_path / f"{META}.json").unlink()
    (tmp_path / f"{META}.pkl").write_bytes(
        pickle.dumps(shards, protocol=pickle.HIGHEST_PROTOCOL)
    )
    assert [meta_of(config)[i] for i in range(20)] == want
    (tmp_path / f"{META}.pkl").write_bytes(pickle.dumps({0: Path("code")}))
    with pytest.raises(DataError, match="only pickles of plain values"):
        meta_of(config)
    (tmp_path / f"{META}.pkl").unlink()
    message = r"neither train_meta.json nor train_meta.pkl is there.*mmpt pack"
    with pytest.raises(DataError, match=message):
        meta_of(config)


@pytest.mark.parametrize(
    "content",
    ['{"format": 2}', "[]", '{"format": 1, "shards": [[1]]}', '{"format": 1}', "{"],
)
def test_a_meta_file_of_another_format_is_an_error(config, tmp_path, content):
    (tmp_path / f"{META}.json").write_text(content)
    with pytest.raises(DataError, match=r"train_meta\.json: "):
        meta_of(config)


def test_long_captions_are_cut(tmp_path):
    captions = Captions(start=[0.0], end=[1.0], cap=[list(range(1000, 1040))])
    write_caption_shard(f"{tmp_path}/c.", Split.TRAIN, 0, [captions])
    written = ShardedTensor.load(tmp_path / "c.train_0.caps_ids")
    assert written[0].tolist() == [list(range(1000, 1032))]


def test_the_meta_file_is_written_last(tmp_path):
    def videos():
        yield make_video(0)
        raise RuntimeError("decoder died")

    with pytest.raises(RuntimeError):
        write_shards(tmp_path, f"{tmp_path}/c.", Split.TRAIN, videos())
    assert not (tmp_path / "train_meta.json").exists()
    assert (
        write_shard_meta(tmp_path, Split.VALID, [["a"], ["b"]]).name == "val_meta.json"
    )
    assert read_shard_meta(tmp_path, Split.TEST) == {0: ["a"], 1: ["b"]}
