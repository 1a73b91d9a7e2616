"""Job types, the check of files before a job starts, and the command line of a training run for
several numbers of processes and GPUs.
"""

import shutil
import sys
from pathlib import Path

import pytest

from mmpt.cli.job import (
    check_data,
    choose_job_type,
    continued,
    job_command,
    num_processes,
    require_fairseq,
    training_command,
)
from mmpt.cli.nodes import ONE_NODE
from mmpt.config import DatasetConfig, RunConfig
from mmpt.config.run import DEMO_COMMANDS
from mmpt.endtasks import MSRVTTTextProcessor
from mmpt.errors import DataError, LaunchError
from tests.support.paths import ROOT

TRAINING = RunConfig(path="a.yaml", task_type="sweep_big")
TEST = RunConfig(
    path="t.yaml", task_type="local_predict", dataset=DatasetConfig(split="test")
)
OWN = ["fairseq-train", "a.yaml", "--user-dir", "mmpt"]
OWN += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]


def command(job_type, num_gpus, fairseq, resume=False, val_path="val.lst"):
    """Returns the command without the paths of python and fairseq-train."""
    config = RunConfig(dataset=DatasetConfig(val_path=val_path), fairseq=fairseq)
    size = num_processes(job_type)
    argv = training_command(config, "a.yaml", size, size, num_gpus, resume=resume)
    return [item.rsplit("/", 1)[-1] if item.startswith("/") else item for item in argv]


@pytest.mark.parametrize(
    ("num_gpus", "fairseq", "flags"),
    [
        (1, {"common": {"fp16": True}}, ["--fp16"]),
        (2, {}, ["--distributed-world-size", "1"]),
        (0, {"common": {"fp16": True, "seed": 2}}, ["--seed", "2", "--cpu"]),
        (0, {"common": {"cpu": True}}, ["--cpu"]),
        (1, {"common": {"cpu": True}}, ["--cpu"]),
    ],
)
def test_the_command_of_one_process(num_gpus, fairseq, flags):
    assert command("local_single", num_gpus, fairseq) == [*OWN, *flags]


@pytest.mark.parametrize(
    ("job_type", "num_gpus", "fairseq", "flags"),
    [
        (
            *("local_small", 2, {"optimization": {"ddp_backend": "legacy_ddp"}}),
            "--distributed-world-size 2 --ddp-backend legacy_ddp",
        ),
        ("local_small", 3, {}, "--distributed-world-size 2 --ddp-backend no_c10d"),
        (
            *("local_big", 8, {"common": {"fp16": True}}),
            "--distributed-world-size 8 --fp16 --ddp-backend no_c10d",
        ),
        (
            *("local_small", 0, {"common": {"bf16": True}}),
            "--distributed-world-size 2 --ddp-backend no_c10d --cpu --distributed-backend gloo",
        ),
    ],
)
def test_the_command_of_several_processes(job_type, num_gpus, fairseq, flags):
    assert command(job_type, num_gpus, fairseq) == [*OWN, *flags.split()]


def test_a_job_on_the_cpu_logs_the_options_that_it_ignores(caplog):
    caplog.set_level("INFO")
    command("local_small", 0, {"common": {"fp16": True}})
    assert caplog.messages == ["no GPU: running 2 processes on the CPU, without fp16"]


@pytest.mark.parametrize(
    ("job_type", "num_gpus"), [("local_small", 1), ("local_big", 7), ("local_4", 3)]
)
def test_too_few_gpus(job_type, num_gpus):
    with pytest.raises(
        LaunchError,
        match=rf"this machine has {num_gpus}; use --jobtype local_{num_gpus}\.$",
    ):
        command(job_type, num_gpus, {})


def test_a_job_without_a_validation_list_does_not_validate():
    assert command("local_single", 1, {}, val_path=None)[-1] == "--disable-validation"


def test_a_resumed_job_omits_options_that_would_start_it_again():
    checkpoint = {
        "restore_file": "w.pt",
        "reset_optimizer": True,
        "reset_lr_scheduler": True,
    }
    fairseq = {"checkpoint": checkpoint | {"save_dir": "s"}}
    assert command("local_single", 1, fairseq, resume=True) == [*OWN, "--save-dir", "s"]


def test_fairseq_finds_this_package_from_any_folder(monkeypatch, tmp_path):
    def user_dir() -> str:
        argv = training_command(RunConfig(), "a.yaml", 1, 1, 1, resume=False)
        return argv[argv.index("--user-dir") + 1]

    monkeypatch.chdir(ROOT)
    assert user_dir() == "mmpt"  # as in the release, whose commands run in this folder
    monkeypatch.chdir(tmp_path)
    assert user_dir() == str(ROOT / "mmpt")
    (tmp_path / "mmpt").mkdir()  # another folder of that name
    assert user_dir() == str(ROOT / "mmpt")


def test_names_of_programs(monkeypatch, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        for name in ("python", "torchrun", "fairseq-train"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    for path, names in (
        (f"{own}:{other}", ("torchrun", "fairseq-train")),
        (f"{other}:{own}", (str(own / "torchrun"), str(own / "fairseq-train"))),
    ):
        monkeypatch.setenv("PATH", path)
        argv = training_command(RunConfig(), "a.yaml", 2, 2, 2, resume=False)
        assert (job_command(2, ONE_NODE, argv)[0], argv[0]) == names


def test_missing_fairseq(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        LaunchError,
        match="READTHEDOCS=1 pip install --no-deps --no-build-isolation -r ",
    ) as error:
        require_fairseq()
    file = Path(str(error.value).split()[-1])
    assert file.read_text() == (ROOT / "requirements-fairseq.txt").read_text()


# ---- job types


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        ("local", TRAINING, "a.yaml is a training config (evaluations have"),
        (
            "local_smal",
            TRAINING,
            "`local_smal` does not run. Did you mean `local_small`?",
        ),
        ("local_predict", TRAINING, "the job type `local_predict` does not run"),
        ("local_single", TEST, "t.yaml is an evaluation config"),
    ],
)
def test_wrong_job_type(asked, config, message):
    with pytest.raises(LaunchError) as caught:
        choose_job_type(asked, config)
    assert message in str(caught.value)
    assert "--jobtype" in str(caught.value)


# ---- the files of a job


def missing(dataset):
    config = RunConfig(path="a.yaml", dataset=MSRVTTTextProcessor.Config(**dataset))
    with pytest.raises(DataError) as caught:
        check_data(config)
    text = str(caught.value)
    assert "DATASET.md" in text
    assert DEMO_COMMANDS in text
    return [
        line.removeprefix("  - ")
        for line in text.splitlines()
        if line.startswith("  - ")
    ]


def test_missing_files_and_folders_are_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("val.lst").touch()
    paths = {"train_path": "train.lst", "val_path": "val.lst", "vfeat_dir": "feat"}
    assert missing(paths) == [
        "train.lst (`dataset.train_path`)",
        "feat (`dataset.vfeat_dir`)",
    ]
    # An evaluation needs no training files.
    paths |= {"split": "test", "test_path": "t.json", "json_path": "a.json"}
    assert missing(paths) == [
        "t.json (`dataset.test_path`)",
        "feat (`dataset.vfeat_dir`)",
        "a.json (`dataset.json_path`)",
    ]


def test_a_restart_after_a_failure_continues_from_the_checkpoint(tmp_path):
    start = [
        "fairseq-train",
        "a.yaml",
        "--restore-file",
        "start.pt",
        "--reset-optimizer",
        "--cpu",
    ]
    start += ["--save-dir", str(tmp_path), "--lr", "1"]
    assert continued(start) == start
    (tmp_path / "checkpoint_last.pt").touch()
    kept = [
        "fairseq-train",
        "a.yaml",
        "--cpu",
        "--save-dir",
        str(tmp_path),
        "--lr",
        "1",
    ]
    assert continued(start) == kept
