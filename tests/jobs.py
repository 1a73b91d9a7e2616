"""Run the project's commands as a user would, on the small corpus of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "projects/retri/norton/how2_demo.yaml"
SCORES = "projects/retri/norton/test_how2_demo_zs.yaml"


def corpus_overrides(corpus: Path, save_dir: Path) -> list[str]:
    """Overrides that point a demo training YAML at `corpus`, in batches of 4 videos."""
    return [
        f"dataset.bert_name={corpus}/bert",
        f"dataset.vfeat_dir={corpus}/feat",
        f"dataset.tfeat_dir={corpus}/feat/demo.bert-demo.",
        f"dataset.train_path={corpus}/how2_s3d_train.lst",
        f"dataset.val_path={corpus}/how2_s3d_val.lst",
        "dataset.num_video_per_batch=4",
        "num_cands=8",
        "centroids=4",
        "infer_scale=2",
        f"fairseq.checkpoint.save_dir={save_dir}",
        f"eval.save_path={save_dir}",
    ]


def launch(
    arguments: Sequence[object], *, timeout_s: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `locallaunch.py` as a user would, from the project's root."""
    return subprocess.run(
        [sys.executable, "locallaunch.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=os.environ | env,
    )
