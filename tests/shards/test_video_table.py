"""The usable videos of a list: invalid lists, missing or empty videos, and invalid shards."""

import logging
from functools import partial

import numpy as np
import pytest

from mmpt.batch import Captions, Split
from mmpt.errors import ConfigError, DataError
from mmpt.processors import (
    How2MetaProcessor,
    ShardedHow2MetaProcessor,
    ShardedTextProcessor,
)
from mmpt.shards.shardedtensor import ShardedTensor, read_shard_meta
from mmpt.shards.video_table import VideoTable, check_shard
from mmpt.shards.writer import write_shards
from tests.support.shard_data import make_data, make_video

TIMES, IDS = "feat/cap.tiny.train_0.startends", "feat/cap.tiny.train_0.caps_ids"


@pytest.fixture
def config(tmp_path):
    return make_data(tmp_path)


def meta_of(config, split=Split.TRAIN):
    return ShardedHow2MetaProcessor(config, split)


def test_list_files_are_cleaned(config, tmp_path, caplog):
    (tmp_path / "train.lst").write_text(
        "video0003\n\n  video0001  \nvideo0003\r\n\nvideo0002"
    )
    with caplog.at_level(logging.WARNING):
        assert meta_of(config).video_ids == ["video0003", "video0001", "video0002"]
        plain = How2MetaProcessor(config, Split.TRAIN)
    assert len(plain) == 3
    assert plain[1] == ("video0001", "video0001")
    assert "1 of 4 lines repeat an earlier id and are dropped" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b" \n\n", "holds none"),
        (b"\xff\xfe\x00", "not a list of one video id per line"),
    ],
)
def test_invalid_list_files_are_refused(config, tmp_path, content, message):
    (tmp_path / "train.lst").write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.lst.*{message}"):
        meta_of(config)


def test_a_missing_list_is_an_error(config):
    with pytest.raises(
        DataError, match=r"nowhere\.lst: no such file\. .* correct the path"
    ):
        meta_of(config.replace(train_path="nowhere.lst"))
    with pytest.raises(DataError, match=r"feat: cannot be read: Is a directory"):
        meta_of(config.replace(train_path=config.vfeat_dir))
    with pytest.raises(ConfigError, match=r"`dataset\.train_path` must be set"):
        meta_of(config.replace(train_path=None))


def test_missing_videos_are_dropped_up_to_the_bound(config, tmp_path, caplog):
    with open(tmp_path / "train.lst", "a") as file:
        file.write("absent1\nabsent2\n")
    with pytest.raises(DataError) as error:
        meta_of(config)
    assert str(error.value) == (
        f"{tmp_path}/train.lst: 2 of 22 videos (9.09%) are not in {tmp_path}/feat/train_meta.json "
        "(first: absent1, absent2); `dataset.max_missing` allows 1.00%. Pack their features, take "
        "them off the list, or raise `dataset.max_missing`."
    )
    with caplog.at_level(logging.WARNING):
        assert len(meta_of(config.replace(max_missing=0.1))) == 20
    assert (
        caplog.text.count("2 of 22 videos")
        == caplog.text.count("they are dropped")
        == 1
    )


def test_empty_videos_are_left_out(tmp_path, caplog):
    videos = [make_video(number) for number in range(6)]
    name, features, captions = videos[1]
    videos[1] = (name, features[:0], captions)
    name, features, _ = videos[4]
    videos[4] = (name, features, Captions(start=[], end=[], cap=[]))
    config = make_data(tmp_path)
    write_shards(config.vfeat_dir, config.tfeat_dir, Split.TRAIN, videos, 4)
    (tmp_path / "train.lst").write_text("\n".join(name for name, _, _ in videos))
    with caplog.at_level(logging.WARNING):
        assert meta_of(config).video_ids == [
            "video0000",
            "video0002",
            "video0003",
            "video0005",
        ]
    left_out = "2 videos have no feature row or no caption and are left out (first: video0001, vi"
    assert left_out in caplog.text
    assert len(meta_of(config.replace(tfeat_dir=None))) == 5
    (tmp_path / "train.lst").write_text("video0001\n")
    message = "at least one video must have features and captions, but none of 1 has"
    with pytest.raises(DataError, match=message):
        meta_of(config)


def resave(tmp_path, stem, change):
    path = tmp_path / stem
    shard = ShardedTensor.load(path)
    rows = [shard[row] for row in range(len(shard))]
    changed = ShardedTensor.from_list(change(rows))
    changed.save(path)


def spoil(value):
    """Returns a change of the second caption of the fourth video."""

    def change(rows):
        rows[3][1, 0] = value
        return rows

    return change


def one_less(rows):
    return rows[:-1]


def one_caption_less(rows):
    return [*rows[:2], rows[2][1:], *rows[3:]]


def narrow(rows):
    return [row[:, :500] for row in rows]


def starts_only(rows):
    return [row[:, :1] for row in rows]


def whole_numbers(rows):
    return [row.astype(np.int16) for row in rows]


def floats(rows):
    return [row.astype(np.float32) for row in rows]


@pytest.mark.parametrize(
    ("stem", "change", "message"),
    [
        ("feat/train_0", narrow, r"floats of shape \[rows, 512\].*500\]"),
        ("feat/train_0", whole_numbers, "but holds int16"),
        (
            "feat/train_0",
            one_less,
            r"train_0: must have one row per .*_meta\.json, 8, but has 7",
        ),
        (TIMES, one_less, r"train_0\.startends: must have one row per video"),
        (IDS, one_less, r"train_0\.caps_ids: must have one row per video"),
        (
            IDS,
            one_caption_less,
            r"video video0002 \(row 2\) must have one row per time",
        ),
        (TIMES, starts_only, r"floats of shape \[captions, 2\]"),
        (IDS, floats, "must hold signed integers .* but holds float32"),
    ],
)
def test_shards_that_do_not_fit_are_found_at_the_start(
    config, tmp_path, stem, change, message
):
    resave(tmp_path, stem, change)
    with pytest.raises(DataError, match=message):
        meta_of(config)


def test_a_missing_shard_is_found_at_the_start(config, tmp_path):
    (tmp_path / "feat" / "train_1_data.npy").unlink()
    message = (
        r"train_1_data\.npy: no such file\. Pack this shard again.*correct the path"
    )
    with pytest.raises(DataError, match=message):
        meta_of(config)


def test_a_caption_prefix_without_a_dot_is_an_error(config):
    with pytest.raises(DataError, match=r"must end in `\.`, but is `.*cap\.tiny`"):
        meta_of(config.replace(tfeat_dir=config.tfeat_dir.removesuffix(".")))


def test_captions_of_another_bert_are_found(config, tmp_path):
    resave(tmp_path, IDS, spoil(30521))
    message = r"caps_ids: video video0003 \(row 3\) must .* below 383, .* but has 30521"
    with pytest.raises(DataError, match=message):
        meta_of(config)
    assert len(meta_of(config.replace(bert_name=None))) == 20


def test_only_the_first_captions_of_a_shard_are_checked(config, tmp_path):
    """A single wrong id after them is found when it is drawn."""
    resave(tmp_path, IDS, spoil(30521))
    shards = read_shard_meta(config.vfeat_dir, Split.TRAIN)
    check = partial(
        check_shard, config.vfeat_dir, config.tfeat_dir, Split.TRAIN, 0, shards, 383
    )
    with pytest.raises(DataError, match="but has 30521"):
        check()
    assert len(check(num_sampled=1).feature_rows) == len(shards[0])


@pytest.mark.parametrize(
    ("stem", "value", "message"),
    [
        (TIMES, np.nan, r"video video0003 \(row 3\) must have finite caption times"),
        (TIMES, np.inf, "must have finite caption times"),
        (IDS, -7, "must have word-piece ids of at least -1, but has -7"),
    ],
)
def test_invalid_captions_are_reported(config, tmp_path, stem, value, message):
    resave(tmp_path, stem, spoil(value))
    key = meta_of(config)[3][0]
    with pytest.raises(DataError, match=message):
        ShardedTextProcessor(config, Split.TRAIN)(key)


def test_a_video_table_finds_the_same_rows_as_a_dictionary():
    shards = {0: ["b", "ä-long-name", "c"], 2: ["a", "b"], 5: []}
    packed = [name for ids in shards.values() for name in ids]
    table = VideoTable.from_shards(shards)
    asked = ["c", "a", "b", "ä-long-name", "zz", "", "c-much-longer-than-any"]
    expected = [packed.index(name) if name in packed else -1 for name in asked]
    assert table.positions(asked).tolist() == expected
    assert table.name_list() == packed
    assert table.key(3, 9) == ("a", 9, 2, 0)
    assert VideoTable.from_shards({}).positions(["a"]).tolist() == [-1]
    assert table.positions([]).tolist() == []


def test_impossible_caption_times_are_counted(tmp_path, caplog):
    config = make_data(tmp_path, num_videos=8)
    stem = str(tmp_path / TIMES)
    times = ShardedTensor.load(stem)
    data = np.zeros((len(times.data), 2), np.float32)
    data[:] = [1.0, 2.0]
    data[:5] = [[9.0, 3.0], [500.0, 501.0], [600.0, 602.0], [-1.0, 2.0], [1.0, 500.0]]
    ShardedTensor(data, np.array(times.starts), stem).save(stem)
    with caplog.at_level(logging.WARNING):
        meta_of(config)
    outside = f"4 of {len(data)} captions reach outside their video"
    assert f"{outside}, 1 end before they start" in caplog.text
