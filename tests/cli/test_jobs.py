"""Job types, the device plan as a table, and command lines against argv written by hand."""

import shutil
import sys
from pathlib import Path

import pytest

from mmpt.cli import jobs
from mmpt.config import DatasetConfig, RunConfig
from mmpt.errors import LaunchError
from tests.jobs import ROOT

TRAINING = RunConfig(path="a.yaml", task_type="sweep_big")
TEST = RunConfig(path="t.yaml", task_type="local_predict", dataset=DatasetConfig(split="test"))


@pytest.mark.parametrize(
    ("asked", "config", "expected"),
    [
        ("local_small", TRAINING, "local_small"),
        (None, RunConfig(task_type="local_big"), "local_big"),
        (None, RunConfig(), "local_single"),
        (None, TEST, "local_predict"),
    ],
)
def test_job_type(asked, config, expected):
    assert jobs.choose_job_type(asked, config) == expected


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        (
            None,
            TRAINING,
            "`task_type` is `sweep_big`, a cluster's job type; say where to run it with --jobtype",
        ),
        ("local_smal", TRAINING, "no job type is called `local_smal`. Did you mean `local_small`?"),
        ("sweep_big", TRAINING, "no job type is called `sweep_big`"),
        ("local_predict", TRAINING, "a.yaml is a training config"),
        ("local_single", TEST, "t.yaml is an evaluation config"),
    ],
)
def test_wrong_job_type(asked, config, message):
    with pytest.raises(LaunchError) as caught:
        jobs.choose_job_type(asked, config)
    assert message in str(caught.value)
    assert "local_" in str(caught.value)


@pytest.mark.parametrize(
    ("job_type", "num_gpus", "processes", "on_gpu"),
    [
        ("local_single", 0, 1, False),
        ("local_single", 1, 1, True),
        ("local_single", 8, 1, True),
        ("local_small", 0, 2, False),
        ("local_small", 2, 2, True),
        ("local_small", 3, 2, True),
        ("local_big", 0, 8, False),
        ("local_big", 8, 8, True),
    ],
)
def test_device_plan(job_type, num_gpus, processes, on_gpu):
    plan = jobs.plan_devices(job_type, num_gpus, ("fp16",))
    assert (plan.num_processes, plan.on_gpu) == (processes, on_gpu)
    assert plan.drops == (() if on_gpu else ("fp16",))
    if on_gpu:
        assert plan.note is None
    else:
        count = "1 process" if processes == 1 else f"{processes} processes"
        assert plan.note == f"no GPU: running {count} on the CPU, without fp16"


@pytest.mark.parametrize(
    ("job_type", "num_gpus", "fitting"),
    [
        ("local_small", 1, "local_single"),
        ("local_big", 1, "local_single"),
        ("local_big", 7, "local_small"),
    ],
)
def test_too_few_gpus(job_type, num_gpus, fitting):
    with pytest.raises(
        LaunchError, match=rf"this machine has {num_gpus}; use --jobtype {fitting}\.$"
    ):
        jobs.plan_devices(job_type, num_gpus)


OWN = ["fairseq-train", "a.yaml", "--user-dir", "mmpt"]
OWN += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]


def command(job_type, num_gpus, fairseq, resume=False):
    """Return the command without the paths of python and fairseq-train."""
    half_precision = [name for name in jobs.HALF_PRECISION if fairseq.get("common", {}).get(name)]
    plan = jobs.plan_devices(job_type, num_gpus, half_precision)
    config = RunConfig(dataset=DatasetConfig(val_path="val.lst"), fairseq=fairseq)
    argv = jobs.training_command(config, "a.yaml", plan, num_gpus, resume)
    return [item.rsplit("/", 1)[-1] if item.startswith("/") else item for item in argv]


def test_command_of_one_process():
    assert command("local_single", 1, {"common": {"fp16": True}}) == [*OWN, "--fp16"]
    assert command("local_single", 2, {}) == [*OWN, "--distributed-world-size", "1"]
    assert command("local_single", 0, {"common": {"fp16": True, "seed": 2}}) == [
        *OWN,
        "--seed",
        "2",
        "--cpu",
    ]
    assert command("local_single", 0, {"common": {"cpu": True}}) == [*OWN, "--cpu"]


def test_without_a_validation_list_there_is_no_validation():
    plan = jobs.plan_devices("local_single", 1)
    assert (
        jobs.training_command(RunConfig(), "a.yaml", plan, 1, False)[-1] == "--disable-validation"
    )


def test_command_of_several_processes():
    argv = command("local_small", 2, {"optimization": {"ddp_backend": "legacy_ddp"}})
    assert argv[0].startswith("python")
    assert argv[1:4] == ["-m", "mmpt.cli.processes", "2"]
    assert argv[4:] == [*OWN, "--distributed-world-size", "2", "--ddp-backend", "legacy_ddp"]
    argv = command("local_small", 0, {"common": {"bf16": True}})
    tail = [
        "--distributed-world-size",
        "2",
        "--ddp-backend",
        "no_c10d",
        "--cpu",
        "--distributed-backend",
        "gloo",
    ]
    assert argv[4:] == [*OWN, *tail]


def test_continuing_leaves_out_what_would_start_anew():
    checkpoint = {
        "restore_file": "w.pt",
        "reset_optimizer": True,
        "reset_lr_scheduler": True,
        "save_dir": "s",
    }
    assert command("local_single", 1, {"checkpoint": checkpoint}, resume=True) == [
        *OWN,
        "--save-dir",
        "s",
    ]


def test_fairseq_finds_this_package_from_every_folder(monkeypatch, tmp_path):
    def user_dir() -> str:
        argv = jobs.training_command(
            RunConfig(), "a.yaml", jobs.DevicePlan(1, on_gpu=True), 1, False
        )
        return argv[argv.index("--user-dir") + 1]

    monkeypatch.chdir(ROOT)
    assert user_dir() == "mmpt"  # as the release, in the folder where its commands run
    monkeypatch.chdir(tmp_path)
    assert user_dir() == str(ROOT / "mmpt")
    (tmp_path / "mmpt").mkdir()  # another folder of that name
    assert user_dir() == str(ROOT / "mmpt")


def test_names_of_programs(monkeypatch, tmp_path):
    own = tmp_path / "own"
    other = tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        for name in ("python", "fairseq-train"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    plan = jobs.DevicePlan(2, on_gpu=True)

    monkeypatch.setenv("PATH", f"{own}:{other}")
    argv = jobs.training_command(RunConfig(), "a.yaml", plan, 2, False)
    assert (argv[0], argv[4]) == ("python", "fairseq-train")
    monkeypatch.setenv("PATH", f"{other}:{own}")
    argv = jobs.training_command(RunConfig(), "a.yaml", plan, 2, False)
    assert (argv[0], argv[4]) == (str(own / "python"), str(own / "fairseq-train"))
    assert jobs.predict_command(["a.yaml"])[1:] == ["-m", "mmpt.cli.predict", "a.yaml"]


def test_missing_fairseq(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        LaunchError, match="READTHEDOCS=1 pip install --no-deps --no-build-isolation -r "
    ) as error:
        jobs.require_fairseq(["python", "-m", "mmpt.cli.processes", "2", "fairseq-train", "a.yaml"])
    file = Path(str(error.value).split()[-1])
    assert file.read_text() == (ROOT / "requirements-fairseq.txt").read_text()
    jobs.require_fairseq(["python", "-m", "mmpt.cli.predict", "a.yaml"])
