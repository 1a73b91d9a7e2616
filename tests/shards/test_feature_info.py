"""The note about features is written once, and compared with the settings of every reader."""

import json

import numpy as np
import pytest

from mmpt.batch import Split
from mmpt.cli.pack import main as pack
from mmpt.config.schema import DatasetConfig
from mmpt.errors import DataError
from mmpt.processors import ShardedVideoProcessor
from mmpt.processors.downstream import VideoProcessor
from mmpt.shards.feature_info import (
    FILE,
    FeatureInfo,
    check_feature_info,
    read_feature_info,
    write_feature_info,
)
from tests.support.feature_files import arguments, write_features

CLIP = FeatureInfo(encoder="hf:clip", revision="abc", width=768, fps=2, normalised=True)


def test_a_note_is_read_back_and_not_replaced(tmp_path):
    assert read_feature_info(tmp_path) is None
    write_feature_info(tmp_path, CLIP)
    write_feature_info(tmp_path, CLIP)
    assert read_feature_info(tmp_path) == CLIP
    other = FeatureInfo(encoder="hf:clip", revision="def", width=768, fps=1)
    message = (
        r"have revision 'abc' \(to be added: 'def'\), fps 2.0 \(to be added: 1.0\)\."
    )
    with pytest.raises(DataError, match=message):
        write_feature_info(tmp_path, other)


def test_unknown_values_are_filled_in_and_kept(tmp_path):
    unknown = FeatureInfo(width=768, fps=2)
    for info in (unknown, CLIP, unknown):
        write_feature_info(tmp_path, info)
    assert read_feature_info(tmp_path) == CLIP


def test_a_damaged_note_is_reported(tmp_path):
    (tmp_path / FILE).write_text('{"width": 0}')
    with pytest.raises(DataError, match=r"features.json: `width` must be at least 1"):
        read_feature_info(tmp_path)


@pytest.mark.parametrize("reader", [VideoProcessor, ShardedVideoProcessor])
def test_every_reader_compares_the_note_with_the_settings(tmp_path, reader):
    config = DatasetConfig(vfeat_dir=str(tmp_path))
    reader(config, Split.TRAIN)  # without a note
    write_feature_info(tmp_path, CLIP)
    reader(config.replace(feature_dim=768, feature_fps=2), Split.TRAIN)
    message = (
        r"768-d features at 2 rows per second, so `model.input_dim` must be 768, but is 512, and "
        r"`dataset.feature_fps` must be 2, but is 1\."
    )
    with pytest.raises(DataError, match=message):
        reader(config, Split.TRAIN)
    with pytest.raises(DataError, match=r"`dataset.feature_fps` must be 2, but is 1\."):
        check_feature_info(config.replace(feature_dim=768))


def test_packing_uses_the_note_of_the_features(tmp_path):
    raw = write_features(tmp_path)
    for path in raw.glob("*.npy"):
        np.save(path, np.ones((4, 768), np.float16))
    write_feature_info(raw, CLIP)
    assert pack(arguments(raw)) == 0
    assert read_feature_info(tmp_path / "packed") == CLIP
    assert np.load(tmp_path / "packed/train_0_data.npy").shape == (12, 768)


def test_packing_finds_the_width_without_a_note(tmp_path, capsys):
    raw = write_features(tmp_path)
    assert pack(arguments(raw)) == 0
    assert read_feature_info(tmp_path / "packed") == FeatureInfo(width=512)
    for path in raw.glob("*.npy"):
        np.save(path, np.ones((4, 96), np.float16))
    assert pack(arguments(raw, target="narrow")) == 0
    assert json.loads((tmp_path / "narrow" / FILE).read_text())["width"] == 96
    assert pack(arguments(raw)) == 2
    assert "those here have width 512 (to be added: 96)" in capsys.readouterr().err
