"""Configuration and launch against recorded output of the released code (config_norton.json)."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from mmpt.cli.job import TRAINING_PROCESSES
from mmpt.cli.launch import main
from mmpt.config import RunConfig
from mmpt.config.loader import next_run_dir
from mmpt.config.run import fairseq_flags
from mmpt.config.yaml_files import read_yaml
from tests.support.paths import ROOT
from tests.support.recorded import record

NORTON = record("config_norton")


def golden_line(name):
    """Returns the last line that the released code prints in a dry run."""
    return NORTON["dryrun"][name]["stdout"][-1]


def dry_run(monkeypatch, capsys, name, job_type, gpus):
    """Returns the last line of a dry run on a machine with `gpus` GPUs."""
    monkeypatch.setattr("mmpt.cli.job.count_gpus", lambda: gpus)
    yaml = f"projects/retri/norton/{name}.yaml"
    assert main([yaml, "--jobtype", job_type, "--dryrun"]) == 0
    return capsys.readouterr().out.splitlines()[-1]


@pytest.fixture
def clean_root(tmp_path, monkeypatch):
    """A working directory like the project's root without runs, in an activated environment."""
    monkeypatch.setenv(
        "PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    for name in ("projects", "mmpt"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_include_chain_is_resolved_as_in_the_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in NORTON["include_chain"]["files"].items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    for name in ("p/b.yaml", "p/c.yaml"):
        assert read_yaml(name) == NORTON["include_chain"][f"recursive_config({name})"]


def test_the_suffix_of_the_run_dir_equals_the_release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("rd/run", "rd/run_3", "rd2"):
        Path(folder).mkdir(parents=True)
    assert next_run_dir("rd", "run") == NORTON["suffix_rundir(rd with run and run_3)"]
    assert next_run_dir("rd2", "run") == NORTON["suffix_rundir(empty)"]


@pytest.mark.parametrize(
    ("name", "job_type", "gpus"),
    [
        ("how2_pretrain", "local_single", 1),
        ("how2_pretrain", "local_small", 8),
        ("how2_pretrain", "local_big", 8),
        ("vtt_ft", "local_single", 1),
        ("coin_ft", "local_single", 1),
    ],
)
def test_the_training_command_equals_the_release(
    clean_root, monkeypatch, capsys, name, job_type, gpus
):
    line = dry_run(monkeypatch, capsys, name, job_type, gpus)
    processes = TRAINING_PROCESSES[job_type]
    if processes > 1:
        before, _, after = line.partition(
            f" --nproc-per-node {processes} -m mmpt.train "
        )
        assert before.startswith("launching ")
        line = "launching " + after
    assert line == golden_line(f"{name} --jobtype {job_type}")
    assert not Path("runs").exists()  # the release writes config.yaml in a dry run


def test_the_command_of_one_process_on_many_gpus_has_a_world_size(
    clean_root, monkeypatch, capsys
):
    words = shlex.split(
        dry_run(monkeypatch, capsys, "how2_pretrain", "local_single", 8)
    )
    at = words.index("--distributed-world-size")
    assert words[at + 1] == "1"
    del words[at : at + 2]
    assert words == shlex.split(golden_line("how2_pretrain --jobtype local_single"))


def test_the_flags_of_an_evaluation_equal_the_release():
    dataset = {"batch_size": 256, "valid_subset": "test", "num_workers": 2}
    path = {"path": "runs/retri/norton/checkpoint_best.pt"}
    golden = golden_line("test_vtt_zs --jobtype local_single").partition(" mmloss ")[2]
    config = RunConfig(fairseq={"dataset": dataset, "common_eval": path})
    assert fairseq_flags(config) == golden.split()


def test_a_sweep_is_submitted_to_a_cluster(clean_root, capsys):
    # The released code raises a KeyError.
    assert NORTON["dryrun"]["how2_pretrain --jobtype None"]["returncode"] == 1
    assert main(["projects/retri/norton/how2_pretrain.yaml", "--dryrun"]) == 0
    assert "#SBATCH --gpus-per-node=8" in capsys.readouterr().out
