"""The YAMLs of COIN and CrossTask hold the released values; the recorded test YAMLs are compared in
tests/parity.
"""

from __future__ import annotations

from typing import Any

import pytest

from mmpt.config import RunConfig, load_config
from tests.jobs import ROOT

OPTIMIZATION = {
    "lr": [5.0e-05],
    "clip_norm": 2.0,
    "optimizer": "adam",
    "adam_betas": "(0.9, 0.98)",
    "lr_scheduler": "polynomial_decay",
    "total_num_update": 1000000,
    "warmup_updates": 122,
    "weight_decay": 0.0,
    "ddp_backend": "no_c10d",
}
RESETS = ["restore_file", "reset_optimizer", "reset_dataloader", "reset_meters", "save_dir"]
PROJECTS = pytest.mark.parametrize("project", ["norton", "videoclip"])


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def load(project: str, name: str) -> RunConfig:
    """Load a YAML by Norton's name of it."""
    if project == "videoclip":
        name = name.replace("_ft", "_videoclip")
        name = name.replace("test_crosstask_zs", "test_crosstask_zs_videoclip")
    return load_config(f"projects/retri/{project}/{name}.yaml")


def check_tuning(config: RunConfig, project: str, task: str, epochs: int, **dataset: Any) -> None:
    assert config.fairseq["optimization"] == OPTIMIZATION | {"max_epoch": epochs}
    assert list(config.fairseq["checkpoint"]) == RESETS
    assert (
        config.fairseq["checkpoint"]["restore_file"] == f"runs/retri/{project}/checkpoint_best.pt"
    )
    assert config.save_dir == f"runs/retri/{project}/{task}"
    assert config.fairseq["dataset"] == {"num_workers": 4, "batch_size": 1}
    assert config.model.layernorm_only is None
    assert config.model.num_hidden_video_layers == 6
    lengths = {"max_video_len": 32, "max_len": 96, "sliding_window_size": 32}
    assert {key: getattr(config.dataset, key) for key in lengths | dataset} == lengths | dataset


@PROJECTS
def test_coin(project: str) -> None:
    feat = {"norton": "data/coin/coin_feature_fps30_512", "videoclip": "data/feat/feat_coin_s3d"}[
        project
    ]
    paths = {
        "train_path": "data/coin/COIN.json",
        "val_path": "data/coin/COIN.json",
        "vfeat_dir": feat,
    }
    config = load(project, "coin_ft")
    check_tuning(config, project, "coin", 8, sliding_window=8, **paths)
    assert config.loss is not None
    assert config.loss.loss_cls == "CrossEntropy"
    assert config.model.model_cls == "MMFusionSeparateActionSegmentation"
    tuned, zero_shot = load(project, "test_coin_ft"), load(project, "test_coin_zs")
    assert tuned.dataset == zero_shot.dataset
    assert tuned.model == config.model
    assert tuned.checkpoint_paths == (f"{config.save_dir}/checkpoint_best.pt",)
    assert (tuned.predictor, zero_shot.predictor) == ("COINPredictor", "COINZSPredictor")
    assert (zero_shot.dataset.sliding_window, zero_shot.model.model_cls) == (16, "MMFusionSeparate")


@PROJECTS
def test_crosstask(project: str) -> None:
    config = load(project, "crosstask_ft")
    check_tuning(
        config,
        project,
        "crosstask",
        5,
        sliding_window=16,
        n_train=30,
        vfeat_dir="data/feat/feat_crosstask_s3d",
    )
    assert config.loss is not None
    assert config.loss.loss_cls == "BCE"
    assert config.model.model_cls == "MMFusionSeparateActionLocalization"
    tuned, zero_shot = load(project, "test_crosstask_ft"), load(project, "test_crosstask_zs")
    assert tuned.dataset == zero_shot.dataset
    assert tuned.model == zero_shot.model == config.model
    assert tuned.checkpoint_paths == (f"{config.save_dir}/checkpoint_best.pt",)
    assert zero_shot.checkpoint_paths == (f"runs/retri/{project}/checkpoint_best.pt",)
    folder = "data/crosstask/crosstask_release/"
    files = {
        "train_csv_path": "videos.csv",
        "val_csv_path": "videos_val.csv",
        "primary_path": "tasks_primary.txt",
        "related_path": "tasks_related.txt",
        "annotation_path": "annotations",
    }
    for run in (config, tuned):
        assert {key: getattr(run.dataset, key) for key in files} == {
            key: folder + name for key, name in files.items()
        }
