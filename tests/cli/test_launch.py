"""The launcher from its arguments to its exit code, with the GPU count and the running of commands
replaced.
"""

import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import psutil
import pytest

from mmpt.cli import launch
from mmpt.config import DatasetConfig, RunConfig, load_config
from mmpt.errors import LaunchError
from mmpt.utils.lock import exclusive
from tests.support.jobs import NORTON, VIDEOCLIP
from tests.support.jobs import SCORES as PREDICT
from tests.support.paths import ROOT

ALIGNMENT = "projects/retri/norton/test_how2_demo_align_zs.yaml"
TRAINING = RunConfig(path="a.yaml", task_type="sweep_big")
TEST = RunConfig(path="t.yaml", task_type="local_predict", dataset=DatasetConfig(split="test"))
OWN = ["fairseq-train", "a.yaml", "--user-dir", "mmpt"]
OWN += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder with our projects; commands are not run but collected, and give `runs.codes`
    in turn.
    """
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "count_gpus", lambda: 0)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # chosen by the user

    class Runs(list):
        def __init__(self):
            self.codes = []

        def train(self, size, command, run, grace_s):
            return self.add(launch.job_command(size, command))

        def predict(self, works, grace_s):
            ((words, _),) = (work.args for work in works)
            return self.add(["python", "-m", "mmpt.cli.predict", *words])

        def add(self, command):
            self.append(command)
            return self.codes.pop(0) if self.codes else 0

    collected = Runs()
    monkeypatch.setattr(launch, "run_ranks", collected.train)
    monkeypatch.setattr(launch, "run_all", collected.predict)
    return collected


@pytest.fixture
def no_preflight(monkeypatch):
    for check in ("check_data", "check_start", "check_parts"):
        monkeypatch.setattr(launch.preflight, check, lambda config: None)


def last_command(out):
    """Return argv from the last line printed."""
    line = out.splitlines()[-1]
    assert line.startswith("launching ")
    return shlex.split(line)[1:]


def test_dryrun_prints_and_neither_writes_nor_runs(runs, capsys):
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "--dryrun"]) == 0
    argv = last_command(capsys.readouterr().out)
    assert argv[1:4] == ["-m", "mmpt.cli.processes", "2"]
    assert argv[5] == VIDEOCLIP
    assert "--cpu" in argv
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=2", "--dryrun"]) == 0
    assert runs == []
    assert not Path("runs").exists()


def test_what_is_run_is_what_is_printed_and_its_exit_code_is_ours(runs, no_preflight, capsys):
    runs.codes.append(9)
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single"]) == 9
    assert runs == [last_command(capsys.readouterr().out)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_training_says_how_to_continue(runs, no_preflight, capsys, signum):
    runs.codes.append(128 + signum)
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small"]) == 128 + signum
    line = "interrupted; run the same command again to continue"
    assert capsys.readouterr().err.splitlines().count(line) == 1


def test_a_second_training_in_the_same_folder_is_refused(runs, no_preflight, capsys):
    save_dir = Path(load_config(VIDEOCLIP).save_dir)
    with exclusive(save_dir / launch.LOCK_NAME, "training"):
        assert launch.main([VIDEOCLIP]) == 2
    assert "another job is training in this folder" in capsys.readouterr().err
    assert not (save_dir / "config.yaml").exists()
    assert launch.main([f"{VIDEOCLIP},{VIDEOCLIP}"]) == 0  # one after the other
    assert len(runs) == 2


def test_overrides_reach_the_training_processes_through_the_resolved_file(
    runs, no_preflight, capsys
):
    overrides = ["dataset.num_video_per_batch=4", "infer_scale=2"]
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single", *overrides]) == 0
    command = last_command(capsys.readouterr().out)
    assert command[1] == "runs/demo/videoclip/config.yaml"
    config = load_config(command[1])
    assert config.dataset.num_video_per_batch == 4
    assert config.retrieval.infer_scale == 2
    assert config.dataset.bert_name == "data/demo/bert"  # from the YAML
    logdir = command[command.index("--tensorboard-logdir") + 1]
    assert config.fairseq["common"]["tensorboard_logdir"] == logdir == "runs/demo/videoclip/run_0"


def test_evaluations_that_follow_one_another_share_a_process(runs, no_preflight):
    assert launch.main([f"{PREDICT},{ALIGNMENT}"]) == 0
    ((_, *command),) = runs
    assert command == ["-m", "mmpt.cli.predict", PREDICT, ALIGNMENT]


def test_overrides_reach_evaluations_through_a_copy_of_each(runs, no_preflight):
    assert launch.main([f"{PREDICT},{ALIGNMENT}", "fairseq.dataset.batch_size=2"]) == 0
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=3"]) == 0
    *paths, other = runs[0][3:] + runs[1][3:]
    copies = [load_config(path) for path in paths]
    assert [copy.name for copy in copies] == ["test_how2_demo_zs", "test_how2_demo_align_zs"]
    assert [copy.metric[0] for copy in copies] == ["RetrievalMetric", "How2AlignMetric"]
    assert {copy.batch_size for copy in copies} == {2}
    assert paths[0] == f"runs/demo/results/{copies[0].copy_name}"
    assert other != paths[0]  # else two jobs at once would read each other's settings


def test_options_of_predict_are_passed_on(runs, no_preflight, capsys):
    assert launch.main([PREDICT, "--allow-missing", "--device=cpu"]) == 0
    assert last_command(capsys.readouterr().out)[3:] == [PREDICT, "--allow-missing", "--device=cpu"]
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "--allow-missing"]) == 2
    assert "unknown options: --allow-missing; evaluations" in capsys.readouterr().err


def test_an_interrupted_run_continues(runs, capsys, caplog):
    folder = Path("runs/demo/norton")
    (folder / "run_0").mkdir(parents=True)
    (folder / "checkpoint_last.pt").touch()
    with caplog.at_level("INFO"):
        assert launch.main([NORTON, "--jobtype", "local_single", "--dryrun"]) == 0
    argv = last_command(capsys.readouterr().out)
    assert not [flag for flag in argv if flag.startswith(("--restore", "--reset"))]
    assert argv[argv.index("--tensorboard-logdir") + 1] == "runs/demo/norton/run_1"
    assert "continuing from runs/demo/norton/checkpoint_last.pt" in caplog.text


def test_a_missing_restore_file_is_an_error_unless_dry(runs, monkeypatch, capsys):
    monkeypatch.setattr(launch.preflight, "check_data", lambda config: None)
    assert launch.main([NORTON, "--jobtype", "local_single"]) == 2
    assert "runs/demo/videoclip/checkpoint_best.pt: no such file" in capsys.readouterr().err
    assert runs == []
    assert launch.main([NORTON, "--jobtype", "local_single", "--dryrun"]) == 0


def test_missing_data(runs, capsys):
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single"]) == 2
    errors = capsys.readouterr().err
    assert "data/demo/how2_s3d_train.lst" in errors
    assert "Traceback" not in errors
    assert not Path("runs").exists()  # nothing is made for a job that cannot start


def test_several_yamls_stop_at_the_first_failure(runs, no_preflight):
    runs.codes.extend([0, 5, 0])
    assert launch.main([f"{VIDEOCLIP},{NORTON},{PREDICT}"]) == 5
    assert [command[5] for command in runs] == [VIDEOCLIP, NORTON]


JOB_FILE = "{project_dir: mine, base_dir: task, task_group: {a: {task_list: [x.yaml]}}}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([f"{VIDEOCLIP},nowhere.yaml"], "nowhere.yaml: 1 mistake\n  - no such file"),
        ([f"{VIDEOCLIP},"], "an empty name: only .yaml files can be launched."),
        (["job.py"], "job.py: only .yaml files can be launched."),
        (["job.yaml"], "job.yaml: 1 mistake\n  - `base_dir` makes this a job file"),
        ([VIDEOCLIP, "dataset.max_len=3"], "must be at least `max_video_len` + 3 (19), but is 3"),
    ],
)
def test_mistakes_of_the_user_are_found_before_anything_runs(
    runs, no_preflight, capsys, argv, message
):
    Path("job.yaml").write_text(JOB_FILE)
    assert launch.main(argv) == 2
    assert message in capsys.readouterr().err
    assert runs == []


def test_a_folder_that_cannot_be_written(runs, no_preflight, capsys):
    assert launch.main([VIDEOCLIP, "fairseq.checkpoint.save_dir=/proc/nowhere"]) == 2
    assert "/proc/nowhere" in capsys.readouterr().err


# ---- job types, and command lines against argv written by hand


@pytest.mark.parametrize(
    ("asked", "config", "message"),
    [
        (
            None,
            TRAINING,
            "a.yaml is a training config (evaluations have",
        ),
        ("local_smal", TRAINING, "`local_smal` does not run. Did you mean `local_small`?"),
        ("local_predict", TRAINING, "the job type `local_predict` does not run"),
        ("local_single", TEST, "t.yaml is an evaluation config"),
    ],
)
def test_wrong_job_type(asked, config, message):
    with pytest.raises(LaunchError) as caught:
        launch.choose_job_type(asked, config)
    assert message in str(caught.value)
    assert "--jobtype" in str(caught.value)


def command(job_type, num_gpus, fairseq, resume=False, val_path="val.lst"):
    """Return the command without the paths of python and fairseq-train."""
    config = RunConfig(dataset=DatasetConfig(val_path=val_path), fairseq=fairseq)
    argv = launch.training_command(config, "a.yaml", job_type, num_gpus, resume=resume)
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
def test_command_of_one_process(num_gpus, fairseq, flags):
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
def test_command_of_several_processes(job_type, num_gpus, fairseq, flags):
    assert command(job_type, num_gpus, fairseq) == [*OWN, *flags.split()]


def test_running_on_the_cpu_is_logged_with_what_is_left_out(caplog):
    caplog.set_level("INFO")
    command("local_small", 0, {"common": {"fp16": True}})
    assert caplog.messages == ["no GPU: running 2 processes on the CPU, without fp16"]


@pytest.mark.parametrize(
    ("job_type", "num_gpus", "fitting"),
    [("local_small", 1, "local_single"), ("local_big", 7, "local_small")],
)
def test_too_few_gpus(job_type, num_gpus, fitting):
    with pytest.raises(
        LaunchError, match=rf"this machine has {num_gpus}; use --jobtype {fitting}\.$"
    ):
        command(job_type, num_gpus, {})


def test_without_a_validation_list_there_is_no_validation():
    assert command("local_single", 1, {}, val_path=None)[-1] == "--disable-validation"


def test_continuing_leaves_out_what_would_start_anew():
    checkpoint = {"restore_file": "w.pt", "reset_optimizer": True, "reset_lr_scheduler": True}
    fairseq = {"checkpoint": checkpoint | {"save_dir": "s"}}
    assert command("local_single", 1, fairseq, resume=True) == [*OWN, "--save-dir", "s"]


def test_fairseq_finds_this_package_from_every_folder(monkeypatch, tmp_path):
    def user_dir() -> str:
        argv = launch.training_command(RunConfig(), "a.yaml", "local_single", 1, resume=False)
        return argv[argv.index("--user-dir") + 1]

    monkeypatch.chdir(ROOT)
    assert user_dir() == "mmpt"  # as the release, in the folder where its commands run
    monkeypatch.chdir(tmp_path)
    assert user_dir() == str(ROOT / "mmpt")
    (tmp_path / "mmpt").mkdir()  # another folder of that name
    assert user_dir() == str(ROOT / "mmpt")


def test_names_of_programs(monkeypatch, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        for name in ("python", "fairseq-train"):
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(own / "python"))
    for path, names in (
        (f"{own}:{other}", ("python", "fairseq-train")),
        (f"{other}:{own}", (str(own / "python"), str(own / "fairseq-train"))),
    ):
        monkeypatch.setenv("PATH", path)
        argv = launch.training_command(RunConfig(), "a.yaml", "local_small", 2, resume=False)
        assert (launch.job_command(2, argv)[0], argv[0]) == names


def test_missing_fairseq(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        LaunchError, match="READTHEDOCS=1 pip install --no-deps --no-build-isolation -r "
    ) as error:
        launch.require_fairseq()
    file = Path(str(error.value).split()[-1])
    assert file.read_text() == (ROOT / "requirements-fairseq.txt").read_text()


@pytest.mark.parametrize(
    ("percent", "chosen", "policy"),
    [(20, {}, None), (60, {}, "passive"), (60, {"OMP_WAIT_POLICY": "active"}, "active")],
)
def test_threads_that_wait_sleep_next_to_busy_programs(monkeypatch, percent, chosen, policy):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is restored after the test
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: percent)
    launch.yield_busy_cores()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
