"""Runs the project's commands like a user, on the small corpus of the tests."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mmpt.config import RunConfig, load_config
from tests.support.forked import run_forked

VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "projects/retri/norton/how2_demo.yaml"
SCORES = "projects/retri/norton/test_how2_demo_zs.yaml"
QUICK = ["fairseq.common.log_interval=1", "fairseq.optimization.warmup_updates=2"]
RELEASED = [
    "fairseq.optimization.lr=[1e-3]",
    "model.layernorm_only=true",
    "loss.sequence_contrast.prompt_ratio=0.3",
    "loss.alpha_lse=1",
    "loss.fusion_weight=0.5",
]
"""Overrides that give the demo's Norton the loss and the trained parameters of the release, and a
learning rate for these parameters."""
ONE_EPOCH = "fairseq.optimization.max_epoch=1"


def corpus_overrides(corpus: Path, save_dir: Path) -> list[str]:
    """Returns overrides that make a training YAML of the demo read `corpus`, 4 videos per batch."""
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


def evaluation(
    yaml: str, corpus: Path, truth: str, checkpoint: str, folder: str
) -> RunConfig:
    """Returns the config of an evaluation of the demo on `corpus`.

    Args:
        truth: name and value of the key of `dataset` that names the annotations.
    """
    overrides = [
        f"dataset.bert_name={corpus}/bert",
        f"dataset.vfeat_dir={corpus}/feat",
        f"dataset.{truth}",
        f"eval.save_path={folder}",
        f"fairseq.common_eval.path={checkpoint}",
        "fairseq.dataset.num_workers=0",
    ]
    return load_config(yaml, overrides)


def launch(
    arguments: Sequence[object], *, timeout_s: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs `mmpt train` in the project's root. Its output includes the whole log."""
    return run_forked(
        "mmpt.cli.main:main",
        ["train", *arguments],
        timeout_s=timeout_s,
        env={"LOGLEVEL": "INFO"} | env,
    )


def train(
    yaml: str,
    corpus: Path,
    save_dir: Path,
    *more: str,
    jobtype: str = "local_single",
    exit_code: int = 0,
    **env: str,
) -> str:
    """Runs a training job on `corpus`, checks its exit code, and returns its log.

    Norton trains with the complete loss of the release.
    """
    released = RELEASED if yaml == NORTON else []
    overrides = [*corpus_overrides(corpus, save_dir), *QUICK, *released, *more]
    run = launch([yaml, "--jobtype", jobtype, *overrides], **env)
    log = run.stdout + run.stderr
    assert run.returncode == exit_code, log[-6000:]
    return log
