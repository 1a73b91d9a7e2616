"""The launcher, from its arguments to its exit code.

The number of GPUs and the function that runs commands are replaced.
"""

import os
import shlex
import signal
from pathlib import Path

import psutil
import pytest

from mmpt.cli import job, launch, processes
from mmpt.cli.nodes import ONE_NODE, Nodes
from mmpt.config import load_config
from mmpt.errors import REQUEUE_CODE
from mmpt.utils import run_loggers
from mmpt.utils.lock import exclusive
from tests.support.jobs import NORTON, VIDEOCLIP
from tests.support.jobs import SCORES as PREDICT
from tests.support.paths import ROOT

ALIGNMENT = "projects/retri/norton/test_how2_demo_align_zs.yaml"


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """An empty folder with the YAMLs of the project. Commands are not run, but collected.

    They exit with the codes in `runs.codes`, one after the other.
    """
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "count_gpus", lambda: 0)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # chosen by the user

    class Runs(list):
        def __init__(self):
            self.codes = []

        def run(self, module, words, size=1, nodes=ONE_NODE, *, num_threads):
            assert num_threads
            self.nodes = nodes
            self.size = size
            if module == "mmpt.train":
                self.append(job.job_command(size, nodes, words))
            else:
                self.append(["python", "-m", module, *words])
            return self.codes.pop(0) if self.codes else 0

    collected = Runs()
    monkeypatch.setattr(processes, "run", collected.run)
    return collected


@pytest.fixture
def no_checks(monkeypatch):
    for check in ("check_data", "check"):
        monkeypatch.setattr(job, check, lambda config, **_: None)


def last_command(out):
    """Returns argv from the last printed line."""
    line = out.splitlines()[-1]
    assert line.startswith("launching ")
    return shlex.split(line)[1:]


def test_a_dry_run_only_prints_the_command(runs, capsys):
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "--dryrun"]) == 0
    argv = last_command(capsys.readouterr().out)
    assert argv[1:6] == ["--standalone", "--nproc-per-node", "2", "-m", "mmpt.train"]
    assert argv[7] == VIDEOCLIP
    assert "--cpu" in argv
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=2", "--dryrun"]) == 0
    assert runs == []
    assert not Path("runs").exists()


def test_a_job_runs_the_command_of_its_dry_run_and_returns_its_exit_code(
    runs, no_checks, capsys
):
    words = [VIDEOCLIP, "--jobtype", "local_single"]
    assert launch.main([*words, "--dryrun"]) == 0
    printed = last_command(capsys.readouterr().out)
    runs.codes.append(9)
    assert launch.main(words) == 9
    assert runs == [printed]
    out = capsys.readouterr().out
    assert out == f"launching {VIDEOCLIP} in 1 process\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (128 + signal.SIGINT, 130),
        (128 + signal.SIGHUP, REQUEUE_CODE),
        (128 + signal.SIGTERM, REQUEUE_CODE),
        (128 + signal.SIGUSR1, REQUEUE_CODE),
        (REQUEUE_CODE, REQUEUE_CODE),
    ],
)
def test_a_stopped_job_prints_how_to_continue(runs, no_checks, capsys, code, expected):
    runs.codes.append(code)
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small"]) == expected
    line = "interrupted; run the same command again to continue"
    assert capsys.readouterr().err.splitlines().count(line) == 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_before_processes_start(monkeypatch, capsys, signum):
    monkeypatch.setattr(
        launch, "yield_busy_cores", lambda: os.kill(os.getpid(), signum)
    )
    assert launch.main([VIDEOCLIP]) == REQUEUE_CODE
    line = "interrupted; run the same command again to continue\n"
    assert capsys.readouterr().err == line


def test_any_number_of_processes_can_be_started(runs, no_checks, capsys):
    assert launch.main([VIDEOCLIP, "--jobtype", "local_5"]) == 0
    assert runs.size == 5
    (command,) = runs
    assert command[command.index("--distributed-world-size") + 1] == "5"
    for job_type in ("local_0", "local_x", "local_-1"):
        assert launch.main([VIDEOCLIP, "--jobtype", job_type]) == 2
        assert "local_N (N processes)" in capsys.readouterr().err


NODES = ["--jobtype", "local_4", "--nnodes", "2", "--rdzv-endpoint", "node0:1234"]


def test_only_node_0_locks_the_folder_and_writes_its_config(
    runs, no_checks, monkeypatch
):
    for name in ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "TORCH_CPP_LOG_LEVEL"):
        monkeypatch.setenv(name, "")
    save_dir = Path(load_config(VIDEOCLIP).save_dir)
    assert launch.main([VIDEOCLIP, *NODES, "--node-rank", "1"]) == 0
    assert not save_dir.exists()
    assert (
        launch.main([VIDEOCLIP, *NODES, "--node-rank", "0", "--max-restarts", "3"]) == 0
    )
    assert (save_dir / "config.yaml").is_file()
    assert runs.nodes == Nodes(2, 2, 0, "node0", 1234, max_restarts=3)
    meeting = "--nnodes 2 --rdzv-backend c10d --rdzv-id mmpt --rdzv-endpoint node0:1234"
    processes = "--nproc-per-node 4 -m mmpt.train"
    starts = f"{meeting} {processes}", f"{meeting} --max-restarts 3 {processes}"
    for command, start in zip(runs, starts, strict=True):
        assert shlex.join(command[1:]).startswith(start)
        assert command[command.index("--distributed-world-size") + 1] == "8"


def test_an_evaluation_runs_on_one_machine(runs, no_checks, capsys):
    assert launch.main([PREDICT, *NODES[2:], "--node-rank", "0"]) == 2
    assert "--nnodes 2: evaluations run on one machine" in capsys.readouterr().err


def test_a_second_training_run_in_the_same_folder_is_refused(runs, no_checks, capsys):
    save_dir = Path(load_config(VIDEOCLIP).save_dir)
    with exclusive(save_dir / job.LOCK_NAME, "training"):
        assert launch.main([VIDEOCLIP]) == 2
    assert "another job is training in this folder" in capsys.readouterr().err
    assert not (save_dir / "config.yaml").exists()
    assert launch.main([f"{VIDEOCLIP},{VIDEOCLIP}"]) == 0  # one after the other
    assert len(runs) == 2


def test_overrides_reach_the_training_processes_through_the_resolved_file(
    runs, no_checks
):
    overrides = ["dataset.num_video_per_batch=4", "infer_scale=2"]
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single", *overrides]) == 0
    (command,) = runs
    assert command[1] == "runs/demo/videoclip/config.yaml"
    config = load_config(command[1])
    assert config.dataset.num_video_per_batch == 4
    assert config.retrieval.infer_scale == 2
    assert config.dataset.bert_name == "data/demo/bert"  # from the YAML
    logdir = command[command.index("--tensorboard-logdir") + 1]
    assert (
        config.fairseq["common"]["tensorboard_logdir"]
        == logdir
        == "runs/demo/videoclip/run_0"
    )


def test_consecutive_evaluations_share_a_process(runs, no_checks):
    assert launch.main([f"{PREDICT},{ALIGNMENT}"]) == 0
    ((_, *command),) = runs
    assert command == ["-m", "mmpt.cli.predict", PREDICT, ALIGNMENT]


def test_overrides_reach_evaluations_through_copies_of_their_yamls(runs, no_checks):
    assert launch.main([f"{PREDICT},{ALIGNMENT}", "fairseq.dataset.batch_size=2"]) == 0
    assert launch.main([PREDICT, "fairseq.dataset.batch_size=3"]) == 0
    *paths, other = runs[0][3:] + runs[1][3:]
    copies = [load_config(path) for path in paths]
    assert [copy.name for copy in copies] == [
        "test_how2_demo_zs",
        "test_how2_demo_align_zs",
    ]
    assert [copy.metric[0] for copy in copies] == ["RetrievalMetric", "How2AlignMetric"]
    assert {copy.batch_size for copy in copies} == {2}
    assert paths[0] == f"runs/demo/results/{copies[0].copy_name}"
    assert other != paths[0]  # otherwise parallel jobs would share settings


def test_options_of_predict_are_passed_through(runs, no_checks, capsys):
    assert launch.main([PREDICT, "--allow-missing", "--device=cpu"]) == 0
    assert last_command(capsys.readouterr().out)[3:] == [
        PREDICT,
        "--allow-missing",
        "--device=cpu",
    ]
    assert launch.main([VIDEOCLIP, "--jobtype", "local_small", "--allow-missing"]) == 2
    assert (
        "unknown options: --allow-missing; only evaluations" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("code", "expected"), [(143, REQUEUE_CODE), (130, 130), (1, 1)]
)
def test_exit_codes_of_evaluations(runs, no_checks, code, expected):
    runs.codes.append(code)
    assert launch.main([PREDICT]) == expected


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


def test_a_logger_without_its_package_is_an_error_at_the_start(
    runs, monkeypatch, capsys
):
    monkeypatch.setattr(job, "require_fairseq", lambda: None)
    monkeypatch.setattr(run_loggers, "find_spec", lambda name: None)
    assert launch.main([VIDEOCLIP, "loggers=[wandb,tensorboard]"]) == 2
    wanted = (
        "error: `loggers` names wandb, but the package wandb is not installed. Install it with: "
        "pip install 'mmpt[wandb]'\n"
    )
    assert wanted in capsys.readouterr().err
    assert launch.main([VIDEOCLIP, "loggers=comet"]) == 2
    assert "loggers" in capsys.readouterr().err
    assert runs == []


def test_a_missing_restore_file_is_an_error_except_in_a_dry_run(
    runs, monkeypatch, capsys
):
    monkeypatch.setattr(job, "check_data", lambda config: None)
    assert launch.main([NORTON, "--jobtype", "local_single"]) == 2
    assert (
        "runs/demo/videoclip/checkpoint_last.pt: no such file"
        in capsys.readouterr().err
    )
    assert runs == []
    assert launch.main([NORTON, "--jobtype", "local_single", "--dryrun"]) == 0


def test_missing_data(runs, capsys):
    assert launch.main([VIDEOCLIP, "--jobtype", "local_single"]) == 2
    errors = capsys.readouterr().err
    assert "data/demo/how2_s3d_train.lst" in errors
    assert "Traceback" not in errors
    assert not Path("runs").exists()  # a job that cannot start creates no folder


def test_several_yamls_stop_at_the_first_failure(runs, no_checks):
    runs.codes.extend([0, 5, 0])
    assert launch.main([f"{VIDEOCLIP},{NORTON},{PREDICT}"]) == 5
    assert [command[7] for command in runs] == [VIDEOCLIP, NORTON]


JOB_FILE = "{project_dir: mine, base_dir: task, task_group: {a: {task_list: [x.yaml]}}}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([f"{VIDEOCLIP},nowhere.yaml"], "nowhere.yaml: 1 mistake\n  - no such file"),
        ([f"{VIDEOCLIP},"], "an empty name: only .yaml files can be launched."),
        (["job.py"], "job.py: only .yaml files can be launched."),
        (["job.yaml"], "job.yaml: 1 mistake\n  - `base_dir` makes this a job file"),
        (
            [VIDEOCLIP, "dataset.max_len=3"],
            "must be at least `max_video_len` + 3 (19), but is 3",
        ),
    ],
)
def test_user_mistakes_are_found_before_anything_runs(
    runs, no_checks, capsys, argv, message
):
    Path("job.yaml").write_text(JOB_FILE)
    assert launch.main(argv) == 2
    assert message in capsys.readouterr().err
    assert runs == []


def test_an_unwritable_folder_is_an_error(runs, no_checks, capsys):
    assert launch.main([VIDEOCLIP, "fairseq.checkpoint.save_dir=/proc/nowhere"]) == 2
    assert "/proc/nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("percent", "chosen", "policy"),
    [
        (20, {}, None),
        (60, {}, "passive"),
        (60, {"OMP_WAIT_POLICY": "active"}, "active"),
    ],
)
def test_waiting_threads_sleep_if_other_programs_keep_the_cores_busy(
    monkeypatch, percent, chosen, policy
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is restored after the test
        monkeypatch.delenv(name)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(psutil, "cpu_percent", lambda seconds: percent)
    launch.yield_busy_cores()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
