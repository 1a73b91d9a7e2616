"""Configuration and launch against what the released code printed and wrote
(config_norton.json).
"""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from mmpt.cli import jobs
from mmpt.cli.launch import main
from mmpt.config import RunConfig
from mmpt.config.fairseq_args import fairseq_flags
from mmpt.config.loader import next_run_dir
from mmpt.config.yaml_files import read_yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"
NORTON = json.loads((GOLDEN / "config_norton.json").read_text())
PRETRAIN = "projects/retri/norton/how2_pretrain.yaml"

COMMON = {"tensorboard_logdir": "run", "log_interval": 1000, "fp16": True}
OPTIMIZATION = {
    "lr": [5e-05],
    "clip_norm": 2.0,
    "optimizer": "adam",
    "adam_betas": "(0.9, 0.98)",
    "lr_scheduler": "polynomial_decay",
    "total_num_update": 1000000,
    "warmup_updates": 122,
    "weight_decay": 0.0,
    "ddp_backend": "no_c10d",
}
RESTORE = {
    "restore_file": "runs/retri/norton/checkpoint_best.pt",
    "reset_optimizer": True,
    "reset_dataloader": True,
    "reset_meters": True,
}


def golden_line(name):
    """Return the argv that the release launched, as a list."""
    line = NORTON["dryrun"][name]["stdout"][-1]
    return shlex.split(line.removeprefix("launching "))


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A folder like the project's root, but without runs, as the current one, in an activated
    environment.
    """
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("projects", "mmpt"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_include_chain(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in NORTON["include_chain"]["files"].items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for name in ("p/b.yaml", "p/c.yaml"):
        assert read_yaml(name) == NORTON["include_chain"][f"recursive_config({name})"]


def test_run_dir_suffix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("rd/run", "rd/run_3", "rd2"):
        Path(folder).mkdir(parents=True)
    assert next_run_dir("rd", "run") == NORTON["suffix_rundir(rd with run and run_3)"]
    assert next_run_dir("rd2", "run") == NORTON["suffix_rundir(empty)"]


@pytest.mark.parametrize("job_type", ["local_single", "local_small", "local_big"])
def test_pretraining_line(fresh, monkeypatch, capsys, job_type):
    gpus = {"local_single": 1}.get(job_type, 8)
    monkeypatch.setattr("mmpt.cli.launch.count_gpus", lambda: gpus)
    assert main([PRETRAIN, "--jobtype", job_type, "--dryrun"]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    golden = NORTON["dryrun"][f"how2_pretrain --jobtype {job_type}"]["stdout"][-1]
    if job_type == "local_single":
        assert line == golden
    else:
        processes = jobs.TRAINING_PROCESSES[job_type]
        before, _, after = line.partition(f" -m mmpt.cli.processes {processes} ")
        assert before.startswith("launching ")
        assert "launching " + after == golden
    assert not Path("runs").exists()  # the release writes config.yaml in a dry run


def test_one_process_on_a_machine_with_many_gpus_differs_by_the_world_size_only(
    fresh, monkeypatch, capsys
):
    monkeypatch.setattr("mmpt.cli.launch.count_gpus", lambda: 8)
    assert main([PRETRAIN, "--jobtype", "local_single", "--dryrun"]) == 0
    argv = shlex.split(capsys.readouterr().out.splitlines()[-1])[1:]
    at = argv.index("--distributed-world-size")
    assert argv[at : at + 2] == ["--distributed-world-size", "1"]
    assert argv[:at] + argv[at + 2 :] == golden_line("how2_pretrain --jobtype local_single")


@pytest.mark.parametrize(
    ("name", "fairseq"),
    [
        (
            "vtt_ft",
            {
                "common": COMMON | {"tensorboard_logdir": "runs/retri/norton/vtt/run_0"},
                "dataset": {"num_workers": 4, "batch_size": 512},
                "optimization": OPTIMIZATION | {"max_epoch": 15},
                "checkpoint": RESTORE | {"save_dir": "runs/retri/norton/vtt"},
            },
        ),
        (
            "coin_ft",
            {
                "common": COMMON | {"tensorboard_logdir": "runs/retri/norton/coin/run_0"},
                "dataset": {"num_workers": 4, "batch_size": 1},
                "optimization": OPTIMIZATION | {"max_epoch": 8},
                "checkpoint": RESTORE | {"save_dir": "runs/retri/norton/coin"},
            },
        ),
        (
            "test_vtt_zs",
            {
                "dataset": {"batch_size": 256, "valid_subset": "test", "num_workers": 2},
                "common_eval": {"path": "runs/retri/norton/checkpoint_best.pt"},
            },
        ),
    ],
)
def test_flags(name, fairseq):
    golden = golden_line(f"{name} --jobtype local_single")
    prefix = golden.index("mmloss") + 1
    assert fairseq_flags(RunConfig(fairseq=fairseq)) == golden[prefix:]


def test_a_sweep_needs_a_job_type(fresh, capsys):
    # A KeyError in the release.
    assert NORTON["dryrun"]["how2_pretrain --jobtype None"]["returncode"] == 1
    assert main([PRETRAIN, "--dryrun"]) == 2
    assert (
        "Say where to run it with --jobtype, one of local_single (1 process)"
        in capsys.readouterr().err
    )
