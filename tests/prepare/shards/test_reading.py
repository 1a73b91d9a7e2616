"""Features that cannot be packed are found before packing. A rerun reads only changed files."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.errors import DataError
from mmpt.prepare.shards import reading
from mmpt.prepare.shards.feature_arrays import Place
from mmpt.prepare.shards.packing import pack_features
from mmpt.prepare.shards.reading import Source, find_unusable
from mmpt.shards.feature_info import (
    FeatureInfo,
    read_feature_info,
    write_feature_info,
)
from mmpt.shards.shardedtensor import video_stem
from tests.support.feature_files import IDS, feature, unreadable


@pytest.fixture
def num_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list with one entry for each video that was read."""
    calls: list[int] = []
    read = reading.read_features

    def counted(*arguments):
        calls.append(1)
        return read(*arguments)

    monkeypatch.setattr(reading, "read_features", counted)
    return calls


def test_unusable_features_are_found_with_reasons(raw: Path, tmp_path: Path) -> None:
    np.save(raw / "video1.npy", np.full((3, 512), np.nan, np.float16))
    np.save(raw / "video2.npy", np.ones((3, 768), np.float16))
    (raw / "video3.npy").unlink()
    found = find_unusable(Source(raw), IDS, tmp_path / "shards")
    assert list(found) == ["video1", "video2", "video3"]
    assert found["video1"] == "holds NaN, infinity or values beyond float16"
    assert "must hold floats of shape [rows, 512]" in found["video2"]
    assert found["video3"] == "no such file"


def test_the_file_that_gives_the_width_is_named(raw: Path, tmp_path: Path) -> None:
    write_feature_info(raw, FeatureInfo(width=768))
    found = find_unusable(Source(raw), IDS, tmp_path / "shards")
    assert f"[rows, 768] (`width` in {raw}/features.json), one row" in found["video0"]


def test_a_rerun_reads_only_groups_of_changed_files(
    raw: Path, tmp_path: Path, num_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SHARD_SIZE", 4)
    for expected in (9, 9):
        assert find_unusable(Source(raw), IDS, tmp_path / "shards") == {}
        assert len(num_read) == expected
    np.save(raw / "video5.npy", np.full((3, 512), np.inf, np.float16))
    assert list(find_unusable(Source(raw), IDS, tmp_path / "shards")) == ["video5"]
    assert len(num_read) == 13
    assert list(find_unusable(Source(raw), IDS, tmp_path / "shards")) == ["video5"]
    assert len(num_read) == 13


def test_a_file_that_could_not_be_read_is_read_again_by_a_rerun(
    raw: Path, tmp_path: Path
) -> None:
    with unreadable(raw / "video1.npy"):
        found = find_unusable(Source(raw), IDS, tmp_path / "shards")
    assert found == {"video1": "cannot be read (broken)"}
    assert find_unusable(Source(raw), IDS, tmp_path / "shards") == {}


def test_one_file_of_all_videos_is_read_by_one_process(tmp_path: Path) -> None:
    rows = {name: feature(number) for number, name in enumerate(IDS)}
    rows["video8"] = rows["video8"][:0]
    path = tmp_path / "all.pkl"
    path.write_bytes(pickle.dumps(rows))
    found = find_unusable(Source(path), IDS, tmp_path / "shards", workers=4)
    assert list(found) == ["video8"]


def test_features_of_another_kind_than_the_shards_are_an_error(
    raw: Path, tmp_path: Path
) -> None:
    write_feature_info(tmp_path / "shards", FeatureInfo(width=512, fps=2))
    with pytest.raises(DataError, match="all features in a folder must be alike"):
        find_unusable(Source(raw, fps=3), IDS, tmp_path / "shards")


def test_rows_are_divided_by_their_length_on_request(raw: Path, tmp_path: Path) -> None:
    rows = (
        np.linspace(1, 9, 3 * 512).reshape(3, 512) * 1000
    )  # The squares exceed the range of float16.
    rows[1] = 0
    np.save(raw / "video1.npy", rows.astype(np.float16))
    place = Place(raw / "video1.npy")
    found = reading.read_features(place, 512, Source(raw, l2_normalize=True))
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 1], atol=1e-3)  # measured 3e-5
    # The directions are not changed.
    cosines = (found[[0, 2]] * rows[[0, 2]]).sum(1) / np.linalg.norm(
        rows[[0, 2]], axis=1
    )
    np.testing.assert_allclose(cosines, 1, atol=1e-3)  # measured 3e-5


def test_shards_are_packed_again_if_rows_must_be_divided(
    raw: Path, tmp_path: Path
) -> None:
    target = tmp_path / "shards"
    for split in (Split.TRAIN, Split.VALID):
        pack_features(Source(raw), target, split, IDS)
    assert read_feature_info(target).normalised is None
    pack_features(Source(raw, l2_normalize=True), target, Split.TRAIN, IDS)
    assert read_feature_info(target).normalised is True
    # Either both splits have rows of length 1 or neither has.
    assert not (target / "val_meta.json").exists()
    assert (target / "train_meta.json").exists()
    rows = np.load(f"{video_stem(target, Split.TRAIN, 0)}_data.npy").astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=2e-3)
    with pytest.raises(
        DataError, match="Give `--l2-normalize` again, or another folder"
    ):
        pack_features(Source(raw), target, Split.TRAIN, IDS)
