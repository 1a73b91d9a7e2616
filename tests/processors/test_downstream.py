import logging
import random

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError, DataError
from mmpt.processors.downstream import (
    DSAligner,
    TextProcessor,
    VideoProcessor,
    keep_with_features,
)
from mmpt.processors.tokenizer import load_tokenizer
from tests.support.tiny_bert import tiny_bert


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("key", ["clip.1", ("clip.1", 3, 4)])
def test_the_features_of_one_video_are_read(tmp_path, dtype, key):
    want = np.random.default_rng(0).standard_normal((5, 512)).astype(dtype)
    np.save(tmp_path / "clip.1.npy", want)
    reader = VideoProcessor(DatasetConfig(vfeat_dir=str(tmp_path)), Split.TEST)
    found = reader(key)
    np.testing.assert_array_equal(found, want)
    assert found.dtype.isnative


def save_narrow(path):
    np.save(path, np.zeros((3, 100), np.float16))


def save_nonsense(path):
    path.write_bytes(b"nonsense")


def save_several(path):
    with open(path, "wb") as file:
        np.savez(file, np.zeros((3, 512), np.float16))


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (None, r"a\.npy: no such file"),
        (save_narrow, r"\[rows, 512\], but are float16 of shape \[3, 100\]"),
        (save_nonsense, r"a\.npy: not a complete \.npy file"),
        (save_several, r"a\.npy: must be an \.npy file, but holds several arrays"),
    ],
)
def test_invalid_feature_files_are_refused(tmp_path, save, message):
    if save is not None:
        save(tmp_path / "a.npy")
    reader = VideoProcessor(DatasetConfig(vfeat_dir=str(tmp_path)), Split.TEST)
    with pytest.raises(DataError, match=message):
        reader("a")


@pytest.fixture
def config(tmp_path):
    """F = 4, T = 10."""
    return DatasetConfig(bert_name=tiny_bert(tmp_path), max_video_len=4, max_len=14)


def test_long_sentences_give_no_warning(config, caplog, monkeypatch):
    """The ids are cut later, so transformers' warning about indexing errors would be wrong."""
    tokenizer = load_tokenizer(config.bert_name, config.use_fast)
    monkeypatch.setattr(tokenizer, "model_max_length", 512)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    ids = TextProcessor(config, Split.TEST)("tomato " * 600)
    assert len(ids) == 600
    assert not caplog.messages


def test_a_sentence_and_its_clip(config):
    ids = TextProcessor(config, Split.TEST)("now we cut the tomato")
    assert ids == [220, 217, 237, 209, 257]  # recorded
    video = np.random.default_rng(0).standard_normal((9, 512)).astype(np.float32)
    aligner = DSAligner(config, Split.TEST)
    batch = aligner(("a", 0, 9), video, ids * 2, random.Random(0))
    assert batch["caps"].tolist() == [101, 102, *ids, *ids[:2], 102]
    np.testing.assert_array_equal(batch["vfeats"].numpy(), video[:4])
    assert batch["video_id"] == ("a", 0, 9)


def test_invalid_features_and_ids_are_reported(config):
    video = np.ones((9, 512), np.float32)
    aligner = DSAligner(config, Split.TEST)
    with pytest.raises(DataError, match="video a: features must be finite"):
        aligner(("a", 0, 9), video * np.nan, [110], random.Random(0))
    with pytest.raises(DataError, match="video a: word-piece ids must be below 383"):
        aligner("a", video, [383], random.Random(0))


def test_one_of_several_captions_is_drawn(config):
    aligner = DSAligner(config, Split.TRAIN)
    captions = [[110], [120, 121], [130]]
    video = np.ones((3, 512), np.float16)
    drawn = set()
    for seed in range(30):
        batch = aligner("a", video, captions, random.Random(seed))
        number = random.Random(seed).randint(0, 2)
        alone = aligner("a", video, captions[number], random.Random(0))
        assert torch.equal(batch["caps"], alone["caps"])
        drawn.add(number)
    assert drawn == {0, 1, 2}


def test_several_captions_of_a_test_item_are_refused(config):
    aligner = DSAligner(config, Split.TEST)
    video = np.ones((3, 512), np.float16)
    with pytest.raises(
        ConfigError, match=r"takes one text per test item, but .* makes 2\."
    ):
        aligner("a", video, [[110], [120]], random.Random(0))


def with_features(folder, *names, max_missing):
    for name in names:
        (folder / f"{name}.npy").touch()
    return DatasetConfig(vfeat_dir=str(folder), max_missing=max_missing)


ITEMS = [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)]


def video_of(item):
    return item[0]


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_items_without_features_are_left_out_with_one_warning(tmp_path, caplog, split):
    config = with_features(tmp_path, "a", "c", max_missing=0.5)
    kept = keep_with_features(ITEMS, video_of, config, split)
    assert kept == [("a", 1), ("c", 3), ("a", 4)]
    (warning,) = caplog.messages
    assert (
        f"1 of the 3 videos of the {split.value} split have no features (b)" in warning
    )


def test_a_test_split_keeps_all_items(tmp_path, caplog):
    config = with_features(tmp_path, "a", "c", max_missing=0.5)
    assert keep_with_features(ITEMS, video_of, config, Split.TEST) == ITEMS
    assert caplog.messages == []


def test_too_many_items_without_features_are_an_error(tmp_path):
    config = with_features(tmp_path, "a", max_missing=0.25)
    message = (
        r"2 of the 3 videos of the train split have no features \(b, c\).*at most 25%"
    )
    with pytest.raises(DataError, match=message):
        keep_with_features(["a", "b", "c"], str, config, Split.TRAIN)
    config = with_features(tmp_path, "a", max_missing=1.0)
    with pytest.raises(DataError, match="1 of the 1 videos"):
        keep_with_features(["b"], str, config, Split.TRAIN)


def test_features_must_have_the_width_that_the_model_takes(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 768), np.float16))
    config = DatasetConfig(vfeat_dir=str(tmp_path), feature_dim=768)
    assert VideoProcessor(config, Split.TEST)("a").shape == (3, 768)
    with pytest.raises(DataError, match=r"768\]. Set `model.input_dim` to their width"):
        VideoProcessor(config.replace(feature_dim=512), Split.TEST)("a")
