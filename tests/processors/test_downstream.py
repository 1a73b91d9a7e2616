import random

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors.downstream import DSAligner, TextProcessor, VideoProcessor, keep_with_features
from tests.support.tiny_bert import tiny_bert


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("key", ["clip.1", ("clip.1", 3, 4)])
def test_features_of_one_video(tmp_path, dtype, key):
    want = np.random.default_rng(0).standard_normal((5, 512)).astype(dtype)
    np.save(tmp_path / "clip.1.npy", want)
    found = VideoProcessor(DatasetConfig(vfeat_dir=str(tmp_path)), Split.TEST)(key)
    np.testing.assert_array_equal(found, want)
    assert found.dtype.isnative


def test_bad_feature_files(tmp_path):
    video = VideoProcessor(DatasetConfig(vfeat_dir=str(tmp_path)), Split.TEST)
    with pytest.raises(DataError, match=r"a\.npy: no such file"):
        video("a")
    np.save(tmp_path / "a.npy", np.zeros((3, 100), np.float16))
    with pytest.raises(DataError, match=r"\[seconds, 512\], but are float16 of shape \[3, 100\]"):
        video("a")
    (tmp_path / "a.npy").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"a\.npy: not a complete \.npy file"):
        video("a")
    np.savez(tmp_path / "a.npz", np.zeros((3, 512), np.float16))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(DataError, match=r"a\.npy: must be an \.npy file, but holds several arrays"):
        video("a")


def test_a_sentence_and_its_clip(tmp_path):
    config = DatasetConfig(bert_name=tiny_bert(tmp_path), max_video_len=4, max_len=14)
    ids = TextProcessor(config, Split.TEST)("now we cut the tomato")
    assert ids == [220, 217, 237, 209, 257]  # recorded
    video = np.random.default_rng(0).standard_normal((9, 512)).astype(np.float32)
    batch = DSAligner(config, Split.TEST)(("a", 0, 9), video, ids * 2, random.Random(0))
    assert batch["caps"].tolist() == [101, 102, *(ids * 2)[:7], 102]
    np.testing.assert_array_equal(batch["vfeats"].numpy(), video[:4])
    assert batch["video_id"] == ("a", 0, 9)
    with pytest.raises(DataError, match="video a: features must be finite"):
        DSAligner(config, Split.TEST)(("a", 0, 9), video * np.nan, ids, random.Random(0))
    with pytest.raises(DataError, match="video a: word-piece ids must be below 383"):
        DSAligner(config, Split.TEST)("a", video, [383], random.Random(0))


def test_of_several_captions_one_is_drawn(tmp_path):
    config = DatasetConfig(bert_name=tiny_bert(tmp_path), max_video_len=4, max_len=14)
    aligner = DSAligner(config, Split.TRAIN)
    captions, video = [[110], [120, 121], [130]], np.ones((3, 512), np.float16)
    drawn = []
    for seed in range(30):
        caps = aligner("a", video, captions, random.Random(seed))["caps"].tolist()
        drawn_one = captions[random.Random(seed).randint(0, 2)]
        assert caps == aligner("a", video, drawn_one, random.Random(0))["caps"].tolist()
        drawn.append(caps)
    assert len({tuple(caps) for caps in drawn}) == 3


def with_features(folder, *names, max_missing):
    for name in names:
        (folder / f"{name}.npy").touch()
    return DatasetConfig(vfeat_dir=str(folder), max_missing=max_missing)


def test_items_without_features_are_left_out_with_one_warning(tmp_path, caplog):
    config = with_features(tmp_path, "a", "c", max_missing=0.5)
    items = [("a", 1), ("b", 2), ("c", 3), ("a", 4), ("b", 5)]
    for split in (Split.TRAIN, Split.VALID):
        caplog.clear()
        kept = keep_with_features(items, lambda item: item[0], config, split)
        assert kept == [("a", 1), ("c", 3), ("a", 4)]
        (warning,) = caplog.messages
        assert f"1 of the 3 videos of the {split.value} split have no features (b)" in warning
    assert keep_with_features(items, lambda item: item[0], config, Split.TEST) == items


def test_too_many_items_without_features(tmp_path):
    config = with_features(tmp_path, "a", max_missing=0.25)
    message = r"2 of the 3 videos of the train split have no features \(b, c\).*at most 25%"
    with pytest.raises(DataError, match=message):
        keep_with_features(["a", "b", "c"], str, config, Split.TRAIN)
    with pytest.raises(DataError, match="1 of the 1 videos"):
        keep_with_features(["b"], str, with_features(tmp_path, "a", max_missing=1.0), Split.TRAIN)
