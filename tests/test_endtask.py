"""The example benchmark of endtask.md runs without changes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.models import MMFusionSeparate
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e


def blocks(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```",
        (ROOT / "endtask.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )


def test_the_example_benchmark_is_scored(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "my_benchmark.py").write_text(blocks("python")[0])
    config = yaml.safe_load(blocks("yaml")[0])
    rng = np.random.default_rng(0)
    (tmp_path / "features").mkdir()
    labels = ["cut the tomato", "heat the pan", "stir the soup"]
    for n in range(7):
        np.save(
            tmp_path / "features" / f"v{n}.npy",
            rng.standard_normal((5 + n, 512), dtype=np.float32),
        )
    (tmp_path / "labels.csv").write_text(
        "video_id,label\n" + "".join(f"v{n},{labels[n % 3]}\n" for n in range(7))
    )
    bert = {"bert_name": str(corpus / "bert"), "max_video_len": 16, "max_len": 48}
    model = MMFusionSeparate.from_config(
        DatasetConfig(**bert), ModelConfig(num_hidden_video_layers=2), pretrained=False
    )
    torch.save({"model": model.state_dict()}, tmp_path / "checkpoint.pt")
    config["dataset"] |= bert | {"test_path": "labels.csv", "vfeat_dir": "features"}
    config["model"]["num_hidden_video_layers"] = 2
    config["fairseq"] = {
        "dataset": {"batch_size": 4, "num_workers": 0},
        "common_eval": {"path": "checkpoint.pt"},
    }
    config["eval"]["save_path"] = "results"
    (tmp_path / "labels_zs.yaml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mmpt.cli.predict",
            "labels_zs.yaml",
            "--save-predictions",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "results" / "results.json").read_text())
    (saved,) = (tmp_path / "results").glob("*.npz")
    with np.load(saved) as predictions:
        hits = predictions["scores"].argmax(axis=1) == np.array([0, 1, 2, 0, 1, 2, 0])
    assert row["metrics"]["TopOne"]["top1"] == hits.mean()
    assert row["chance"]["TopOne"]["top1"] == 1 / 3
    assert "top1" in done.stdout
