"""The YAML for training on the user's own data fits the features."""

from pathlib import Path
from typing import Any

import pytest

from mmpt.config import load_config
from mmpt.errors import DataError
from mmpt.prepare.user_data.training_yaml import (
    check_replaceable,
    training_values,
    write_training,
)
from mmpt.prepare.user_data.videos import fitting_settings
from mmpt.shards.feature_info import FeatureInfo
from tests.support.paths import ROOT


def values_for(info: FeatureInfo, *, from_bert: bool = False) -> dict[str, Any]:
    return training_values(
        load_config(ROOT / "projects/retri/norton/how2_pretrain.yaml"),
        {"bert_name": "no/such/folder", "train_path": "train.lst"},
        fitting_settings(num_train=40, batch=5, recipe="norton", max_epoch=6),
        info,
        save_dir="runs/mine",
        from_bert=from_bert,
    )


@pytest.mark.parametrize(
    ("info", "model"),
    [
        (FeatureInfo(encoder="s3d", width=512), {}),
        (FeatureInfo(width=512), {}),
        # CLIP ViT-B/32 is as wide as S3D.
        (FeatureInfo(encoder="hf:clip", width=512), {"layernorm_only": False}),
        (FeatureInfo(width=768), {"input_dim": 768, "layernorm_only": False}),
    ],
)
def test_all_weights_are_trained_on_features_of_another_network(
    info: FeatureInfo, model: dict[str, Any]
) -> None:
    values = values_for(info)
    assert values.get("model", {}) == model
    rates = values["fairseq"]["optimization"].get("lr")
    assert rates == ([5e-5] if model else None)


def test_the_yaml_has_the_rate_of_the_features() -> None:
    assert "feature_fps" not in values_for(FeatureInfo(width=512))["dataset"]
    assert values_for(FeatureInfo(width=512, fps=2))["dataset"]["feature_fps"] == 2


def test_only_a_yaml_of_this_command_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    check_replaceable(path)
    values = values_for(FeatureInfo(width=512), from_bert=True)
    write_training(path, "38 training and 2 validation videos", values)
    check_replaceable(path)
    config = load_config(path)
    assert config.save_dir == "runs/mine"
    assert config.option("checkpoint", "restore_file") is None
    path.write_text("dataset: {}")
    with pytest.raises(DataError, match="was not made by this command"):
        check_replaceable(path)
