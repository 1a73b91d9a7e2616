"""Every shipped YAML can be loaded, and the full-size ones have the published values.

The evaluation YAMLs that were recorded are compared in tests/parity.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.config import RunConfig, load_config
from mmpt.config.yaml_files import read_yaml
from mmpt.tasks import Task
from tests.support.paths import GOLDEN, ROOT

YAMLS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "projects").rglob("*.yaml")
)
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
RESETS = [
    "restore_file",
    "reset_optimizer",
    "reset_dataloader",
    "reset_meters",
    "save_dir",
]
VTT, CROSSTASK = "data/msrvtt", "data/crosstask/crosstask_release"
VTT_FEATURES = {
    "norton": f"{VTT}/msrvtt_feature_fps30_512",
    "videoclip": "data/feat/feat_vtt_s3d",
}
COIN_FEATURES = {
    "norton": "data/coin/coin_feature_fps30_512",
    "videoclip": "data/feat/feat_coin_s3d",
}


def load(name: str) -> RunConfig:
    return load_config(f"projects/retri/{name}.yaml")


def test_the_yamls_are_found() -> None:
    assert "projects/retri/norton/how2_pretrain.yaml" in YAMLS


@pytest.mark.parametrize("path", YAMLS)
def test_each_yaml_loads_and_its_header_shows_the_command_to_run_it(path: str) -> None:
    config = load_config(path)
    assert config.path == path
    Task.from_config(config)  # every class is known and fits the others
    header = Path(path).read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"locallaunch.py {path}" in header


def test_videoclip_pretraining_equals_the_released_yaml() -> None:
    golden = json.loads((GOLDEN / "config_mmpt.json").read_text())
    for name in ("how2", "how2_pretrain"):
        ours = read_yaml(f"projects/retri/videoclip/{name}.yaml")
        # A key of MMPT. The release has this number in its code.
        assert ours.pop("infer_scale") == 16
        assert ours == golden["generated projects/retri/videoclip/how2.yaml"]


def test_norton_pretraining_has_the_published_values() -> None:
    ours = read_yaml("projects/retri/norton/how2_pretrain.yaml")
    dataset = {
        "max_video_len": 16,
        "max_len": 48,
        "num_video_per_batch": 64,
        "clip_per_video": 16,
        "sampled_min_len": 8,
        "sampled_max_len": 32,
        "sampled_video_min_len": 3,
        "sampled_video_max_len": 16,
    }
    assert ours["dataset"].items() >= dataset.items()
    assert ours["model"]["layernorm_only"] is True
    assert ours["loss"] == {
        "loss_cls": "MMContraLoss",
        "sequence_contrast": {
            "sequence_contrast_weight": 0.1,
            "threshold": 8,
            "prompt_ratio": 0.3,
            "scale": 0.1,
        },
        "sinkhorn_iterations": 50,
        "beta": 0.3,
        "alpha_lse": 1,
        "fusion_weight": 0.5,
    }
    retrieval = {
        "centroids": 512,
        "examples_per_cent_to_train": 48,
        "num_cands": 192,
        "retri_epoch": 1,
        "infer_scale": 16,
    }
    assert ours.items() >= retrieval.items()


def check_tuning(
    name: str, task: str, loss: str, batch_size: int, epochs: int, **dataset: Any
) -> RunConfig:
    """Compares a fine-tuning YAML with the common settings and with its own settings."""
    config, project = load(name), name.partition("/")[0]
    assert config.loss is not None
    assert (config.loss.loss_cls, config.batch_size) == (loss, batch_size)
    assert config.fairseq["optimization"] == OPTIMIZATION | {"max_epoch": epochs}
    assert config.fairseq["dataset"] == {"num_workers": 4, "batch_size": batch_size}
    assert list(config.fairseq["checkpoint"]) == RESETS
    start = f"runs/retri/{project}/checkpoint_best.pt"
    assert config.option("checkpoint", "restore_file") == start
    assert config.save_dir == f"runs/retri/{project}/{task}"
    assert (config.model.layernorm_only, config.model.num_hidden_video_layers) == (
        None,
        6,
    )
    dataset |= {"max_video_len": 32, "max_len": 96}
    assert {key: getattr(config.dataset, key) for key in dataset} == dataset
    return config


@pytest.mark.parametrize(
    ("name", "task", "loss", "batch_size", "epochs", "videos", "is_split"),
    [
        ("norton/vtt_ft", "vtt", "T2VContraLoss", 512, 15, "train.9k", True),
        ("norton/vttqa_ft", "vttqa", "V2TContraLoss", 128, 8, "train.7k", False),
        ("videoclip/vtt_videoclip", "vtt", "T2VContraLoss", 224, 10, "train", True),
        ("videoclip/vttqa_videoclip", "vttqa", "V2TContraLoss", 128, 5, "train", False),
    ],
)
def test_fine_tuning_on_msrvtt(
    name: str,
    task: str,
    loss: str,
    batch_size: int,
    epochs: int,
    videos: str,
    is_split: bool,
) -> None:
    test_videos = f"{VTT}/MSRVTT_JSFUSION_test.csv"
    extended = name == "videoclip/vtt_videoclip"
    check_tuning(
        name,
        task,
        loss,
        batch_size,
        epochs,
        train_path=f"{VTT}/MSRVTT_{videos}.csv",
        val_path=test_videos,
        jsfusion_path=test_videos if is_split else None,
        full_test_path=f"{VTT}/MSRVTT_FULL_test.csv" if extended else None,
        vfeat_dir=VTT_FEATURES[name.partition("/")[0]],
        dup=20,
    )


@pytest.mark.parametrize(
    ("name", "seconds", "checkpoint", "save_path"),
    [
        ("norton/test_vtt_ft", 32, "norton/vtt", "norton/vtt/"),
        ("norton/test_vttqa_ft", 16, "norton/vttqa", "norton/vttqa/"),
        ("norton/test_didemo_zs", 32, "norton", "norton/didemo/"),
        ("videoclip/test_vtt_zs", 32, "videoclip", "videoclip/vtt_zs/eval"),
        ("videoclip/test_vtt_videoclip", 32, "videoclip/vtt", "videoclip/vtt/eval"),
        ("videoclip/test_vttqa_zs", 32, "videoclip", "videoclip/vttqa_zs/eval"),
        (
            "videoclip/test_vttqa_videoclip",
            32,
            "videoclip/vttqa",
            "videoclip/vttqa/eval",
        ),
        ("videoclip/test_didemo_zs", 32, "videoclip", "videoclip/didemo_zs/eval"),
    ],
)
def test_scoring_settings(
    name: str, seconds: int, checkpoint: str, save_path: str
) -> None:
    config = load(name)
    assert (config.dataset.max_video_len, config.dataset.max_len) == (seconds, 96)
    assert config.batch_size == 256
    assert config.checkpoint_paths == (f"runs/retri/{checkpoint}/checkpoint_best.pt",)
    assert config.eval.save_path == f"runs/retri/{save_path}"
    assert (config.task_type, config.is_test) == ("local_predict", True)


@pytest.mark.parametrize(
    ("project", "suffix"), [("norton", "ft"), ("videoclip", "videoclip")]
)
def test_coin(project: str, suffix: str) -> None:
    files = {"train_path": "data/coin/COIN.json", "val_path": "data/coin/COIN.json"}
    files["vfeat_dir"] = COIN_FEATURES[project]
    windows = {"sliding_window": 8, "sliding_window_size": 32}
    name = f"{project}/coin_{suffix}"
    config = check_tuning(name, "coin", "CrossEntropy", 1, 8, **windows, **files)
    assert config.model.model_cls == "MMFusionSeparateActionSegmentation"
    tuned, zero_shot = (
        load(f"{project}/test_coin_{suffix}"),
        load(f"{project}/test_coin_zs"),
    )
    assert tuned.dataset == zero_shot.dataset
    assert tuned.model == config.model
    assert tuned.checkpoint_paths == (f"{config.save_dir}/checkpoint_best.pt",)
    assert (tuned.predictor, zero_shot.predictor) == (
        "COINPredictor",
        "COINZSPredictor",
    )
    assert (zero_shot.dataset.sliding_window, zero_shot.model.model_cls) == (
        16,
        "MMFusionSeparate",
    )


@pytest.mark.parametrize(
    ("project", "suffix", "zero_shot_suffix"),
    [("norton", "ft", "zs"), ("videoclip", "videoclip", "zs_videoclip")],
)
def test_crosstask(project: str, suffix: str, zero_shot_suffix: str) -> None:
    files = {
        "train_csv_path": f"{CROSSTASK}/videos.csv",
        "val_csv_path": f"{CROSSTASK}/videos_val.csv",
        "primary_path": f"{CROSSTASK}/tasks_primary.txt",
        "related_path": f"{CROSSTASK}/tasks_related.txt",
        "annotation_path": f"{CROSSTASK}/annotations",
    }
    windows = {"sliding_window": 16, "sliding_window_size": 32, "n_train": 30}
    name, features = f"{project}/crosstask_{suffix}", "data/feat/feat_crosstask_s3d"
    config = check_tuning(
        name, "crosstask", "BCE", 1, 5, vfeat_dir=features, **windows, **files
    )
    assert config.model.model_cls == "MMFusionSeparateActionLocalization"
    tuned = load(f"{project}/test_crosstask_{suffix}")
    zero_shot = load(f"{project}/test_crosstask_{zero_shot_suffix}")
    assert tuned.dataset == zero_shot.dataset
    assert {key: getattr(tuned.dataset, key) for key in files} == files
    assert tuned.model == zero_shot.model == config.model
    assert tuned.checkpoint_paths == (f"{config.save_dir}/checkpoint_best.pt",)
    assert zero_shot.checkpoint_paths == (f"runs/retri/{project}/checkpoint_best.pt",)
