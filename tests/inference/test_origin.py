"""The origin of a model: the settings of its training run, without the folders of this machine."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mmpt.config import DatasetConfig, load_config
from mmpt.errors import CheckpointError
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.inference.origin import (
    Origin,
    extract_command,
    find_mismatch,
    find_origin,
    find_other_features,
    published_encoder,
    published_settings,
)
from mmpt.shards.feature_info import FeatureInfo
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


def test_settings_are_read_from_the_folder_of_an_evaluated_checkpoint(
    tmp_path: Path,
) -> None:
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    trained = tmp_path / "trained"
    trained.mkdir()
    checkpoint = trained / "checkpoint_best.pt"
    assert find_origin(config, checkpoint).training is None

    features = tmp_path / "feat"
    features.mkdir()
    info = {"format": 1, "encoder": "s3d", "width": 512, "revision": "sha256 12"}
    info["normalised"] = True
    (features / "features.json").write_text(json.dumps(info))
    values = load_config(TRAINING, import_fairseq=False).to_dict()
    values["dataset"]["vfeat_dir"] = str(features)
    (trained / "config.yaml").write_text(yaml.safe_dump(values))
    origin = find_origin(config, checkpoint)
    assert origin.training is not None
    assert origin.training["loss"]["loss_cls"] == "MMContraLoss"
    found = (origin.encoder, origin.encoder_revision, origin.normalised)
    assert found == ("s3d", "sha256 12", True)

    # The facts that the run recorded are used, even if the features have changed or are deleted.
    facts = {"features": {**info, "encoder": "hf:a/clip", "normalised": False}}
    (trained / "run.json").write_text(json.dumps(facts))
    for _ in range(2):
        origin = find_origin(config, checkpoint)
        found = (origin.encoder, origin.encoder_revision, origin.normalised)
        assert found == ("hf:a/clip", "sha256 12", False)
        shutil.rmtree(features, ignore_errors=True)
    (trained / "config.yaml").unlink()
    assert find_origin(config, checkpoint).encoder == "hf:a/clip"


@pytest.mark.parametrize("text", ["{", "[]", '{"features": {"width": -1}}'])
def test_damaged_facts_of_a_run_give_only_a_warning(
    tmp_path: Path, caplog, text
) -> None:
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    (tmp_path / "run.json").write_text(text)
    assert find_origin(config, tmp_path / "checkpoint_best.pt").encoder is None
    assert "features of the training run are not known" in caplog.text


def test_a_checkpoint_for_another_rate_is_an_error(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    facts = {"features": {"width": 512, "fps": 2}}
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="with 2 rows per second, but `dataset"):
        MMPTModel.from_pretrained(folder)


def test_features_without_a_name_are_recognised(tmp_path: Path) -> None:
    """`mmpt pack` writes such a `features.json` unless `--encoder` is given."""
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    checkpoint = evaluation / "checkpoint_best.pt"
    for facts in ({"name": "a"}, {"features": None}):
        (evaluation / "run.json").write_text(json.dumps(facts))
        assert not find_origin(config, checkpoint).is_unnamed
    (evaluation / "run.json").write_text('{"features": {"width": 512}}')
    assert find_origin(config, checkpoint).is_unnamed


def test_a_broken_yaml_next_to_a_checkpoint_gives_only_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = make_run(tmp_path / "evaluation")
    config = load_config(evaluation / "config.yaml", import_fairseq=False)
    (tmp_path / "config.yaml").write_text("datset: {}\n")
    assert find_origin(config, tmp_path / "checkpoint_best.pt").training is None
    assert "settings of the training run are not known" in caplog.text


def test_a_saved_model_has_no_path_of_a_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    model = MMPTModel.from_pretrained(run)
    assert model.origin.checkpoint == run / "checkpoint_best.pt"
    model.save_pretrained(tmp_path / "saved")
    assert MMPTModel.from_pretrained(tmp_path / "saved").origin.checkpoint is None


@pytest.mark.parametrize(
    ("encoder", "revision", "published"),
    [
        (None, None, None),
        ("s3d", "sha256 12", "s3d"),
        ("my_parts.Encoder", None, "my_parts.Encoder"),
        ("hf:openai/clip-vit-large-patch14", "ce19dc", None),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "timm 1.0", None),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "sha256 12", None),
        ("CLIP ViT-B/32", None, "CLIP ViT-B/32"),
        ("hf:/tmp/secret/clip", None, "hf:clip"),
        ("hf:/secret/", None, "hf:secret"),
        ("hf:./secret/clip/", None, "hf:clip"),
        ("hf:../clip", None, "hf:clip"),
        ("hf:~/clip", None, "hf:clip"),
        ("hf:secret\\clip", None, "hf:clip"),
        ("hf:secret/clip", "sha256 12", "hf:clip"),
        ("hf:C:\\secret\\clip", "sha256 12", "hf:clip"),
        ("hf:C:\\secret\\clip", None, "hf:clip"),
        ("hf:\\\\secret\\clip", None, "hf:clip"),
        ("hf:C:/secret/clip", None, "hf:clip"),
        ("C:\\secret\\clip", None, "clip"),
        ("C:/clip", None, "clip"),
        ("InternVideo2: 6B", None, "InternVideo2: 6B"),
        ("timm:local-dir:/tmp/secret/vit", "timm 1.0", "timm:local-dir:vit"),
        ("timm:local-dir:secret/vit", "sha256 12", "timm:local-dir:vit"),
        ("timm:local-dir:C:\\secret\\vit", "sha256 12", "timm:local-dir:vit"),
        ("/tmp/secret/clip", None, "clip"),
    ],
)
def test_a_published_encoder_contains_no_local_path(
    encoder, revision, published
) -> None:
    assert published_encoder(encoder, revision) == (published or encoder)


@pytest.mark.parametrize(
    ("encoder", "fps", "normalised", "options"),
    [
        ("s3d", 1, True, "--encoder s3d"),
        ("hf:a/b", 2, False, "--encoder hf:a/b --fps 2 --l2_normalize 0"),
        ("my_parts.Encoder", 4, None, "--encoder my_parts.Encoder"),
        ("hf:/my data/b", 0.5, True, "--encoder 'hf:/my data/b' --fps 0.5"),
    ],
)
def test_the_command_that_makes_features(encoder, fps, normalised, options) -> None:
    command = extract_command(encoder, fps=fps, normalised=normalised)
    assert command == f"mmpt extract --vdir VIDEOS --fdir FEATURES {options}"


@pytest.mark.parametrize("encoder", [None, "CLIP ViT-B/32"])
def test_an_encoder_without_a_command(encoder) -> None:
    assert extract_command(encoder, fps=1, normalised=True) is None


TRAINED = Origin(encoder="hf:a/clip", encoder_revision="ce19", normalised=True)


@pytest.mark.parametrize(
    ("origin", "info", "expected"),
    [
        (Origin(), {"encoder": "s3d", "normalised": True}, None),
        (TRAINED, {}, None),
        (TRAINED, {"encoder": "hf:a/clip", "normalised": True}, None),
        (
            TRAINED,
            {"encoder": "timm:resnet", "normalised": False},
            "the features are from timm:resnet, not normalised (features.json), but the model was "
            "trained with features from hf:a/clip, normalised",
        ),
        (
            TRAINED,
            {"normalised": False},
            "the features are from an unknown encoder, not normalised (features.json), but the "
            "model was trained with features from hf:a/clip, normalised",
        ),
        # The same folder under other names.
        (Origin(encoder="hf:/old/clip"), {"encoder": "hf:/new/clip"}, None),
        (
            Origin(encoder="hf:/old/clip", encoder_revision="sha256 12"),
            {"encoder": "hf:renamed", "revision": "sha256 12"},
            None,
        ),
    ],
)
def test_features_of_another_encoder(origin, info, expected) -> None:
    assert find_mismatch(origin, FeatureInfo(width=768, **info)) == expected


@pytest.mark.parametrize(
    ("info", "is_other"),
    [
        ({"encoder": "hf:a/clip"}, True),
        ({"encoder": "hf:a/clip", "width": 768}, False),
        ({"encoder": "s3d"}, False),
        ({"encoder": "S3D HowTo100M"}, False),
        ({}, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("facts", [None, {"features": None}])
def test_the_released_checkpoints_record_no_features_and_take_features_of_s3d(
    info, is_other, facts, tmp_path
) -> None:
    if info is not None:
        (tmp_path / "features.json").write_text(json.dumps({"width": 512} | info))
    if facts is not None:
        (tmp_path / "run.json").write_text(json.dumps(facts))
    dataset = DatasetConfig(vfeat_dir=str(tmp_path))
    other = find_other_features(tmp_path / "checkpoint_best.pt", dataset)
    assert (other is not None) == is_other
    if other is not None:
        assert "the features are from hf:a/clip (features.json), but" in other
        assert "take features from S3D only" in other
