"""The MSR-VTT and DiDeMo files of both projects hold the published settings, which differ in few
places.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from mmpt.config import RunConfig, load_config
from mmpt.config.fairseq_args import fairseq_flags
from mmpt.tasks import Task

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "parity" / "golden"
PROJECT = "projects/retri"
DATA = "data/msrvtt"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def load(name: str) -> RunConfig:
    config = load_config(f"{PROJECT}/{name}.yaml")
    Task.from_config(config)  # every class is known and fits the others
    return config


TRAINING: dict[str, dict[str, Any]] = {
    "norton/vtt_ft": {
        "train_path": f"{DATA}/MSRVTT_train.9k.csv",
        "jsfusion_path": f"{DATA}/MSRVTT_JSFUSION_test.csv",
        "vfeat_dir": f"{DATA}/msrvtt_feature_fps30_512",
        "loss": "T2VContraLoss",
        "batch_size": 512,
        "max_epoch": 15,
    },
    "norton/vttqa_ft": {
        "train_path": f"{DATA}/MSRVTT_train.7k.csv",
        "jsfusion_path": None,
        "vfeat_dir": f"{DATA}/msrvtt_feature_fps30_512",
        "loss": "V2TContraLoss",
        "batch_size": 128,
        "max_epoch": 8,
    },
    "videoclip/vtt_videoclip": {
        "train_path": f"{DATA}/MSRVTT_train.csv",
        "jsfusion_path": f"{DATA}/MSRVTT_JSFUSION_test.csv",
        "full_test_path": f"{DATA}/MSRVTT_FULL_test.csv",
        "vfeat_dir": "data/feat/feat_vtt_s3d",
        "loss": "T2VContraLoss",
        "batch_size": 224,
        "max_epoch": 10,
    },
    "videoclip/vttqa_videoclip": {
        "train_path": f"{DATA}/MSRVTT_train.csv",
        "jsfusion_path": None,
        "vfeat_dir": "data/feat/feat_vtt_s3d",
        "loss": "V2TContraLoss",
        "batch_size": 128,
        "max_epoch": 5,
    },
}


@pytest.mark.parametrize("name", TRAINING)
def test_training_settings(name: str) -> None:
    config, expected = load(name), dict(TRAINING[name])
    assert config.loss is not None
    assert config.loss.loss_cls == expected.pop("loss")
    assert (config.batch_size, config.max_epoch) == (
        expected.pop("batch_size"),
        expected.pop("max_epoch"),
    )
    assert {key: getattr(config.dataset, key) for key in expected} == expected
    assert config.dataset.full_test_path == expected.get("full_test_path")
    assert config.dataset.val_path == f"{DATA}/MSRVTT_JSFUSION_test.csv"
    assert (config.dataset.dup, config.dataset.max_video_len, config.dataset.max_len) == (
        20,
        32,
        96,
    )
    assert config.option("optimization", "lr") == [5.0e-05]
    assert config.option("optimization", "warmup_updates") == 122
    assert config.model.layernorm_only is None
    start = f"runs/retri/{name.partition('/')[0]}/checkpoint_best.pt"
    assert config.option("checkpoint", "restore_file") == start


def test_the_command_line_of_norton_vtt_is_the_recorded_one() -> None:
    recorded = json.loads((GOLDEN / "config_norton.json").read_text())["dryrun"][
        "vtt_ft --jobtype local_single"
    ]
    words = shlex.split(recorded["stdout"][-1])
    config = load("norton/vtt_ft").with_option(
        "common", "tensorboard_logdir", "runs/retri/norton/vtt/run_0"
    )
    assert fairseq_flags(config) == words[words.index("mmloss") + 1 :]


@pytest.mark.parametrize(
    ("name", "seconds", "checkpoint", "save_path"),
    [
        ("norton/test_vtt_zs", 32, "norton", "norton/"),
        ("norton/test_vtt_ft", 32, "norton/vtt", "norton/vtt/"),
        ("norton/test_vttqa_zs", 16, "norton", "norton/"),
        ("norton/test_vttqa_ft", 16, "norton/vttqa", "norton/vttqa/"),
        ("norton/test_didemo_zs", 32, "norton", "norton/didemo/"),
        ("videoclip/test_vtt_zs", 32, "videoclip", "videoclip/vtt_zs/eval"),
        ("videoclip/test_vtt_videoclip", 32, "videoclip/vtt", "videoclip/vtt/eval"),
        ("videoclip/test_vttqa_zs", 32, "videoclip", "videoclip/vttqa_zs/eval"),
        ("videoclip/test_vttqa_videoclip", 32, "videoclip/vttqa", "videoclip/vttqa/eval"),
        ("videoclip/test_didemo_zs", 32, "videoclip", "videoclip/didemo_zs/eval"),
    ],
)
def test_scoring_settings(name: str, seconds: int, checkpoint: str, save_path: str) -> None:
    config = load(name)
    assert (config.dataset.max_video_len, config.dataset.max_len, config.batch_size) == (
        seconds,
        96,
        256,
    )
    assert config.checkpoint_paths == (f"runs/retri/{checkpoint}/checkpoint_best.pt",)
    assert config.eval.save_path == f"runs/retri/{save_path}"
    assert (config.task_type, config.is_test) == ("local_predict", True)
