"""Fine-tuning on YouCook2 clips from a released-format checkpoint, and scoring what comes out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mmpt.cli.predict import predict
from mmpt.config import load_config
from mmpt.models.checkpoint import load_checkpoint
from tests.jobs import ROOT, launch
from tests.parity.e2e_data import GOLDEN, make_e2e_files

PROJECT = "projects/retri/videoclip"


def test_fine_tuning_and_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = make_e2e_files(tmp_path / "files")
    youcook, save_dir = files / "data" / "youcook", tmp_path / "run"
    common = [
        f"dataset.bert_name={files}/tinybert",
        f"dataset.trainval_annotation={youcook}/youcookii_annotations_trainval.json",
        f"dataset.vfeat_dir={youcook}/youcook_validation_feature_fps30_512",
        "model.num_hidden_video_layers=2",
        "fairseq.dataset.num_workers=0",
    ]
    training = [
        *common,
        f"dataset.train_path={youcook}/youcook_val.pkl",
        f"dataset.val_path={youcook}/youcook_val.pkl",
        "dataset.max_missing=0.1",  # one of its ten videos has no features
        f"fairseq.checkpoint.restore_file={GOLDEN}/checkpoint_norton_tiny.pt",
        f"fairseq.checkpoint.save_dir={save_dir}",
        "fairseq.common.cpu=true",
        "fairseq.common.fp16=false",
        "fairseq.common.log_interval=1",
        "fairseq.dataset.batch_size=16",
        "fairseq.optimization.warmup_updates=1",
        "fairseq.optimization.max_epoch=1",
    ]
    job = launch([f"{PROJECT}/youcook_videoclip.yaml", "--jobtype", "local_single", *training])
    log = job.stdout + job.stderr
    assert job.returncode == 0, log[-3000:]
    assert "1 of the 10 videos of the train split have no features (missing_video)" in log
    assert re.search(r"num_updates 4\b", log)  # 54 clips
    before = load_checkpoint(GOLDEN / "checkpoint_norton_tiny.pt")["model"]
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
    numbers = predict(config, device=torch.device("cpu"), allow_missing=True).columns["run"]["RetrievalMetric"]
    assert 0 <= numbers["R1"] < numbers["R10"] <= 1
