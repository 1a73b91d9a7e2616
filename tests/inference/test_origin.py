"""Where a model is from: the settings of its training, without the folders of this machine."""

import json
from pathlib import Path

import pytest
import yaml

from mmpt.config import load_config
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.origin import find_origin, published_settings
from tests.support.paths import ROOT
from tests.support.tiny_run import make_run

TRAINING = ROOT / "projects/retri/norton/how2_demo.yaml"


def test_settings_are_published_without_folders_and_machine() -> None:
    overrides = [
        "dataset.train_path=/home/somebody/secret/train.lst",
        "dataset.vfeat_dir=/home/somebody/secret/feat/",
        "fairseq.checkpoint.save_dir=/home/somebody/secret",
        "slurm.account=secret",
    ]
    config = load_config(TRAINING, overrides, import_fairseq=False)
    settings = published_settings(config)
    text = json.dumps(settings)
    assert "secret" not in text
    assert "somebody" not in text
    assert settings["dataset"]["train_path"] == "train.lst"
    assert settings["dataset"]["vfeat_dir"] == "feat"
    assert settings["loss"]["loss_cls"] == "MMContraLoss"
    assert settings["fairseq"]["optimization"]["lr"] == [0.0003]
    assert settings["num_cands"] == 24


def test_the_training_of_an_evaluated_checkpoint_is_next_to_it(tmp_path: Path) -> None:
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    trained = tmp_path / "trained"
    trained.mkdir()
    checkpoint = trained / "checkpoint_best.pt"
    assert find_origin(config, checkpoint).training is None

    features = tmp_path / "feat"
    features.mkdir()
    info = {"format": 1, "encoder": "s3d", "width": 512}
    (features / "features.json").write_text(json.dumps(info))
    values = load_config(TRAINING, import_fairseq=False).to_dict()
    values["dataset"]["vfeat_dir"] = str(features)
    (trained / "config.yaml").write_text(yaml.safe_dump(values))
    origin = find_origin(config, checkpoint)
    assert origin.training is not None
    assert origin.training["loss"]["loss_cls"] == "MMContraLoss"
    assert origin.encoder == "s3d"


def test_a_broken_yaml_next_to_a_checkpoint_is_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    (tmp_path / "config.yaml").write_text("datset: {}\n")
    assert find_origin(config, tmp_path / "checkpoint_best.pt").training is None
    assert "settings of the training are not known" in caplog.text


def test_a_saved_model_says_no_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    model = MMPTModel.from_pretrained(run)
    assert model.origin.checkpoint == run / "checkpoint_best.pt"
    model.save_pretrained(tmp_path / "saved")
    assert MMPTModel.from_pretrained(tmp_path / "saved").origin.checkpoint is None
