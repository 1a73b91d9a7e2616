"""Fine-tuning on YouCook2 clips from a released-format checkpoint, and scoring what comes out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.fine_tuning import PRETRAINED, on_cpu, tiny_model, train
from tests.jobs import ROOT
from tests.parity.e2e_data import make_e2e_files

PROJECT = "projects/retri/videoclip"


def test_fine_tuning_and_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = make_e2e_files(tmp_path / "files")
    youcook, save_dir = files / "data" / "youcook", tmp_path / "run"
    common = [
        *tiny_model(files),
        f"dataset.trainval_annotation={youcook}/youcookii_annotations_trainval.json",
        f"dataset.vfeat_dir={youcook}/youcook_validation_feature_fps30_512",
    ]
    training = [
        *common,
        f"dataset.train_path={youcook}/youcook_val.pkl",
        f"dataset.val_path={youcook}/youcook_val.pkl",
        "dataset.max_missing=0.1",  # one of its ten videos has no features
        "fairseq.dataset.batch_size=16",
        *on_cpu(save_dir),
    ]
    log = train(f"{PROJECT}/youcook_videoclip.yaml", training)
    assert "1 of the 10 videos of the train split have no features (missing_video)" in log
    assert re.search(r"num_updates 4\b", log)  # 54 clips
    before = load_checkpoint(PRETRAINED)["model"]
    after = load_checkpoint(save_dir / "checkpoint_best.pt")["model"]
    moved = [key for key in after if not torch.equal(before[key], after[key])]
    assert any("LayerNorm" not in key for key in moved)  # everything is trained, not LayerNorm only
    scoring = [
        *common,
        f"dataset.test_path={youcook}/youcook_val.pkl",
        f"fairseq.common_eval.path={save_dir}/checkpoint_best.pt",
        f"eval.save_path={save_dir}/eval",
    ]
    config = load_config(f"{PROJECT}/test_youcook_videoclip.yaml", scoring)
    numbers = predict(config, device=torch.device("cpu"), allow_missing=True).columns["run"][
        "RetrievalMetric"
    ]
    assert 0 <= numbers["R1"] < numbers["R10"] <= 1
