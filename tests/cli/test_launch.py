"""The launcher from its arguments to its exit code, with the GPU count and the running of commands
replaced.
"""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.cli import launch
from mmpt.config import load_config
from mmpt.utils.lock import exclusive

ROOT = Path(__file__).resolve().parents[2]
NORTON = "projects/retri/norton/how2_demo.yaml"
VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
PREDICT = "projects/retri/norton/test_how2_demo_zs.yaml"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder with our projects; commands are not run but collected, and give `runs.codes`
    in turn.
    """
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "count_gpus", lambda: 0)
    monkeypatch.setattr(launch.jobs, "require_fairseq", lambda command: None)

    class Runs(list):
        codes: list[int] = []  # noqa: RUF012

    collected = Runs()

    def run_all(commands, extra_env, grace_s):
        collected.extend(commands)
        assert len(extra_env) == len(commands)
        for command, env in zip(commands, extra_env, strict=True):
            assert (env.get("CUDA_VISIBLE_DEVICES") == "") == ("--cpu" in command)
        return Runs.codes.pop(0) if Runs.codes else 0

    monkeypatch.setattr(launch, "run_all", run_all)
    yield collected
    Runs.codes = []


@pytest.fixture
def no_preflight(monkeypatch):
    monkeypatch.setattr(launch.preflight, "check_data", lambda config: None)
    monkeypatch.setattr(launch.preflight, "check_restore_file", lambda config: None)
    monkeypatch.setattr(launch.preflight, "check_parts", lambda config: None)
    monkeypatch.setattr(launch.preflight, "check_start", lambda path: None)


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
    assert "--fp16" not in argv
    assert "--cpu" in argv
    assert runs == []
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=2", "--dryrun"]) == 0
    assert not Path("runs").exists()


def test_what_is_run_is_what_is_printed_and_its_exit_code_is_ours(runs, no_preflight, capsys):
    runs.codes.extend([9])
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single"]) == 9
    assert runs == [last_command(capsys.readouterr().out)]


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
    argv = [
        VIDEOCLIP,
        "--jobtype",
        "local_single",
        "dataset.num_video_per_batch=4",
        "infer_scale=2",
    ]
    assert launch.main(argv) == 0
    command = last_command(capsys.readouterr().out)
    assert command[1] == "runs/demo/videoclip/config.yaml"
    config = load_config(command[1])
    assert config.dataset.num_video_per_batch == 4
    assert config.retrieval.infer_scale == 2
    assert config.dataset.bert_name == "data/demo/bert"  # from the YAML
    logdir = command[command.index("--tensorboard-logdir") + 1]
    assert config.fairseq["common"]["tensorboard_logdir"] == logdir == "runs/demo/videoclip/run_0"


def test_predict(runs, no_preflight, capsys):
    assert launch.main([PREDICT]) == 0
    assert last_command(capsys.readouterr().out)[1:] == ["-m", "mmpt.cli.predict", PREDICT]
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=2"]) == 0
    path = last_command(capsys.readouterr().out)[-1]
    copy = load_config(path)
    assert path == f"runs/demo/results/{copy.copy_name}"
    assert (copy.batch_size, copy.name) == (2, "test_how2_demo_zs")
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=3"]) == 0
    # Else two jobs at once would read each other's settings.
    assert last_command(capsys.readouterr().out)[-1] != path


def test_options_of_predict_are_passed_on(runs, no_preflight, capsys):
    assert (
        launch.main([PREDICT, "--jobtype", "local_predict", "--allow-missing", "--device=cpu"]) == 0
    )
    assert last_command(capsys.readouterr().out)[3:] == [PREDICT, "--allow-missing", "--device=cpu"]
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "--allow-missing"]) == 2
    assert "unknown options: --allow-missing; only evaluations" in capsys.readouterr().err


def test_an_interrupted_run_continues(runs, capsys, caplog):
    folder = Path("runs/demo/norton")
    folder.mkdir(parents=True)
    (folder / "run_0").mkdir()
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
    assert (
        launch.main(["projects/retri/norton/how2_pretrain.yaml", "--jobtype", "local_single"]) == 2
    )
    errors = capsys.readouterr().err
    assert "data/how2/how2_s3d_train.lst" in errors
    assert "Traceback" not in errors
    assert not Path("runs").exists()  # nothing is made for a job that cannot start


def test_several_yamls_stop_at_the_first_failure(runs, no_preflight):
    runs.codes.extend([0, 5, 0])
    assert launch.main([f"{VIDEOCLIP},{NORTON},{PREDICT}"]) == 5
    assert [command[5] for command in runs] == [VIDEOCLIP, NORTON]


def test_all_yamls_are_read_before_the_first_one_runs(runs, no_preflight, capsys):
    for later in ("nowhere.yaml", "", PREDICT.replace("test_", "")):
        assert launch.main([f"{VIDEOCLIP},{later}"]) == 2
        assert runs == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml: 1 mistake\n  - no such file"),
        (["job.py"], "job.py: only .yaml files can be launched."),
        ([VIDEOCLIP, "--jobtype", "local_tiny"], "no job type is called `local_tiny`"),
        (["projects/retri/norton/how2_pretrain.yaml"], "`task_type` is `sweep_big`"),
        ([VIDEOCLIP, "dataset.max_len=3"], "must be at least `max_video_len` + 3 (19), but is 3"),
    ],
)
def test_mistakes_of_the_user(runs, capsys, argv, message):
    assert launch.main(argv) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(runs, no_preflight, monkeypatch, capsys):
    monkeypatch.setattr(launch, "_keep_others_out", lambda save_dir, held: None)
    assert launch.main([VIDEOCLIP, "fairseq.checkpoint.save_dir=/proc/nowhere"]) == 2
    assert "/proc/nowhere" in capsys.readouterr().err


def test_too_few_gpus(runs, monkeypatch, capsys):
    monkeypatch.setattr(launch, "count_gpus", lambda: 1)
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "fairseq.common.cpu=false"]) == 2
    assert (
        "needs 2 GPUs, but this machine has 1; use --jobtype local_single."
        in capsys.readouterr().err
    )


def test_job_files_are_not_expanded(runs, capsys):
    Path("job.yaml").write_text(
        "{project_dir: mine, base_dir: task, task_group: {a: {task_list: [x.yaml]}}}"
    )
    assert launch.main(["job.yaml"]) == 2
    assert "job.yaml: 1 mistake\n  - `base_dir` makes this a job file" in capsys.readouterr().err


def test_the_script_itself():
    done = subprocess.run(
        [sys.executable, "locallaunch.py", "nowhere.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: nowhere.yaml: 1 mistake\n  - no such file; paths are relative to the current "
        "directory.\n"
    )
