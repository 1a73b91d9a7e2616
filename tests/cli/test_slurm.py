"""Submission to a SLURM whose programs are shell scripts, and the tasks of a job as submitit runs
them.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from mmpt.cli import extract, job, launch, slurm
from mmpt.config import SlurmConfig
from mmpt.errors import ConfigError
from tests.support.jobs import SCORES, VIDEOCLIP
from tests.support.paths import ROOT

RELEASED = "projects/retri/norton/how2_pretrain.yaml"


def program(folder: Path, name: str, text: str) -> None:
    """Writes a shell script."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The folder of SLURM's programs, next to the YAMLs of the project. All checks succeed."""
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(job, "check", lambda config: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    program(folder, "srun", "exit 1")
    program(folder, "sbatch", '/bin/cp "$1" script; echo "Submitted batch job 42"')
    return folder


def options(script: str) -> dict[str, str]:
    """Returns the options of sbatch in a script."""
    lines = [line for line in script.splitlines() if line.startswith("#SBATCH --")]
    pairs = [line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines]
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def task_of(path: str) -> slurm.NodeTask:
    """Returns the task that a job runs on each node."""
    return DelayedSubmission.load(path).function


def test_a_training_run_is_submitted_and_the_commands_to_follow_it_printed(
    programs, capsys
):
    section = [
        "slurm.nodes=2",
        "slurm.gpus_per_node=4",
        "slurm.time=2-12:30:00",
        "slurm.mem=64G",
    ]
    section += [
        "slurm.partition=gpu",
        "slurm.account=us",
        "slurm.setup=[module load cuda]",
    ]
    section += ["slurm.qos=high", "slurm.constraint=a100", "slurm.comment=our run"]
    section += ["slurm.cpus_per_task=32", "slurm.signal=300", "slurm.sbatch.gres=gpu:4"]
    section += ["slurm.sbatch.exclusive=true", "slurm.sbatch.hold=false"]
    assert (
        launch.main([VIDEOCLIP, *section, "--jobtype", "slurm", "--max-restarts=1"])
        == 0
    )
    save_dir = Path("runs/demo/videoclip").absolute()
    assert capsys.readouterr().out == (
        "submitted job 42\n"
        f"  log:    {save_dir}/slurm/42.log\n"
        f"  follow: tail -F {save_dir}/slurm/42.log\n"
        "  state:  squeue --jobs 42\n"
        "  cancel: scancel 42\n"
    )
    script = Path("script").read_text()
    assert options(script) == {
        "job-name": "how2_demo",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "4",
        "cpus-per-task": "32",
        "time": str(60 * 60 + 30),
        "mem": "64G",
        "partition": "gpu",
        "account": "us",
        "qos": "high",
        "constraint": "a100",
        "comment": "our run",
        "gres": "gpu:4",
        "signal": "USR2@300",
        "output": f"{save_dir}/slurm/%j.log",
        "open-mode": "append",
        "requeue": "",
        "exclusive": "",
    }
    assert script.index("\nmodule load cuda\n") < script.index("\nsrun ")
    task = task_of("runs/demo/videoclip/slurm/42_submitted.pkl")
    assert task.num_nodes == 2
    words = [VIDEOCLIP, *section, "--jobtype", "local_4", "--max-restarts", "1"]
    assert task.argv == ("train", *words, "--rdzv-timeout", "300")


@pytest.mark.parametrize(
    ("arguments", "size", "cores"),
    [
        ([RELEASED], 8, 8 * 5),  # 4 loader workers for each process
        (["projects/retri/norton/crosstask_ft.yaml"], 2, 2 * 5),
        (
            ["projects/retri/norton/crosstask_ft.yaml", "slurm.gpus_per_node=3"],
            3,
            3 * 5,
        ),
        # `slurm_config: big`.
        ([RELEASED, "--jobtype", "slurm", "task_type=null"], 8, 8 * 5),
        ([RELEASED, "--jobtype", "sweep_small"], 2, 2 * 5),
        ([RELEASED, "slurm.gpus_per_node=0"], 1, 5),
        ([RELEASED, "slurm.gpus_per_node=0", "slurm.processes_per_node=6"], 6, 6 * 5),
        ([VIDEOCLIP, "--jobtype=slurm", "slurm_config=null"], 1, 2),
    ],
)
def test_the_sizes_of_jobs_with_released_and_other_yamls(
    programs, capsys, caplog, arguments, size, cores
):
    with caplog.at_level("INFO"):
        assert launch.main([*arguments, "--dryrun"]) == 0
    script = capsys.readouterr().out
    on_gpu = "slurm.gpus_per_node=0" not in arguments
    assert options(script).get("gpus-per-node") == (str(size) if on_gpu else None)
    assert options(script)["cpus-per-task"] == str(cores)
    assert f"--jobtype local_{size} " in script.splitlines()[-1]
    is_released = not {"slurm", "--jobtype=slurm"} & set(arguments)
    assert (f"add --jobtype local_{size}" in caplog.text) == is_released
    assert not Path("runs").exists()


def test_a_dry_run_needs_no_slurm(programs, capsys):
    (programs / "sbatch").unlink()
    assert launch.main([RELEASED, "--dryrun"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash")
    assert launch.main([RELEASED]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert "`sbatch` of SLURM is not installed here" in error


def test_the_message_of_sbatch_is_printed_once(programs, capsys):
    message = "sbatch: error: Batch job submission failed: Invalid account"
    program(programs, "sbatch", f'echo "{message}" >&2; exit 1')
    assert launch.main([RELEASED]) == 2
    assert capsys.readouterr().err.count(message) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [RELEASED, "slurm.node=2"],
            "`slurm.node` is not a known key. Did you mean `nodes`?",
        ),
        ([RELEASED, "slurm.nodes=0"], "`slurm.nodes` must be at least 1, but is 0."),
        ([RELEASED, "slurm.time=tomorrow"], "`slurm.time` must be a whole number"),
        (
            [RELEASED, "slurm.time=60"],
            "`slurm.signal` must be below `slurm.time` (60 s), but is",
        ),
        (
            [RELEASED, "slurm.mem=much"],
            "`slurm.mem` must be a number with a unit, such as 64G",
        ),
        (
            [RELEASED, "slurm.partition=' '"],
            "`slurm.partition` must be one line of text",
        ),
        (
            [RELEASED, "--nnodes=2", "--rdzv-endpoint=a"],
            "leave them out, and set `slurm.nodes`",
        ),
        ([f"{RELEASED},{VIDEOCLIP}"], "a SLURM job trains one YAML"),
        (
            [SCORES, "--jobtype=slurm", "slurm.nodes=2"],
            "`slurm.nodes` must be 1 in evaluations",
        ),
    ],
)
def test_mistakes_give_one_message_and_exit_code_2(
    programs, capsys, arguments, message
):
    assert launch.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert message in error
    assert not Path("script").exists()


def test_several_evaluations_are_submitted_as_one_job(programs, capsys):
    other = SCORES.replace("_zs", "_bg_zs")
    yamls = f"{SCORES},{other}"
    assert launch.main([yamls, "--allow-missing", "--jobtype", "slurm"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[1].split()[1]).parent
    words = ("train", yamls, "--allow-missing", "--jobtype", "local_predict")
    assert task_of(f"{folder}/42_submitted.pkl") == slurm.NodeTask(words)
    assert options(Path("script").read_text())["gpus-per-node"] == "1"


def test_extraction_is_submitted_as_an_array_of_parts(programs, capsys):
    words = [
        "--vdir",
        "my videos",
        "--fdir",
        "feat",
        "--num_decoding_thread",
        "16",
        "--hflip=1",
    ]
    words += [
        "--dtype",
        "bf16",
        "--random-weights",
        "--dict",
        "words.npy",
        "--encoder=s3d",
        "--encoder=hf:openai/clip-vit-base-patch32",
        "--num-parts",
        "3",
    ]
    assert (
        extract.main(
            [*words, "--jobtype", "slurm", "slurm.mem=32G", "slurm.time=1:00:00"]
        )
        == 0
    )
    folder = Path("feat/slurm").absolute()
    out = capsys.readouterr().out
    assert "submitted job 42, an array of 3\n" in out
    assert f"log:    {folder}/42_*.log\n" in out
    assert f"follow: tail -F {folder}/42_0.log\n" in out
    given = options(Path("script").read_text())
    assert (given["array"], given["mem"], given["time"]) == ("0-2%3", "32G", "60")
    assert (given["cpus-per-task"], given["gpus-per-node"]) == ("16", "1")
    seen: list[extract.Options] = []
    command = extract.Command(
        lambda options: seen.append(options),
        options=extract.Options,
        interrupt_message="",
    )
    for part in range(3):
        name, *arguments = task_of(f"feat/slurm/42_{part}_submitted.pkl").argv
        assert name == "extract"
        assert command(arguments) == 0
        assert seen[-1] == extract.Options(
            vdir="my videos",
            fdir=Path("feat"),
            num_decoding_thread=16,
            hflip=1,
            dtype="bf16",
            random_weights=True,
            words=Path("words.npy"),
            encoder=["s3d", "hf:openai/clip-vit-base-patch32"],
            shard=f"{part}/3",
            slurm=None,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-parts=2"], "need --jobtype slurm"),
        (["slurm.mem=3G"], "need --jobtype slurm"),
        (["--jobtype=slurm", "--shard=0/2"], "give --num-parts"),
        (
            ["--jobtype=slurm", "--encoder=s3d", "--encoder=s3d"],
            "must differ in their last part",
        ),
        (
            ["--jobtype=slurm", "slurm.nodes=2"],
            "`slurm.nodes` must be 1 in extractions",
        ),
        (["--jobtype=slurm", "slurm.men=3G", "slurm.nodes=0"], "arguments: 2 mistakes"),
    ],
)
def test_mistakes_in_extractions(programs, capsys, arguments, message):
    assert extract.main(["--vdir=a", "--fdir=b", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not Path("b").exists()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24:00:00", 86400),
        ('"24:00:00"', 86400),
        ("1-12:30:15", 131415),
        ("2-6", 194400),
        ("2-6:01", 194460),
        ("90:00", 5400),
        ("600", 600),
    ],
)
def test_times_may_be_written_in_several_formats(text, seconds):
    """YAML itself reads 24:00:00 and 90:00 as numbers of seconds."""
    assert slurm.section_of([f"slurm.time={text}"]).time == seconds


def test_an_empty_section_has_the_defaults():
    assert slurm.section_of([]) == SlurmConfig()
    with pytest.raises(ConfigError, match="`dataset` is not a known key"):
        slurm.section_of(["dataset.split=test"])


def test_the_nodes_meet_at_the_address_of_the_first_one(programs, monkeypatch):
    script = '[ "$4" = gpu[07] ] || [ "$4" = gpu07 ] && echo "NodeName=gpu07 NodeAddr=10.0.0.7 A=b"'
    program(programs, "scontrol", script)
    variables = {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "1234567",
        "SLURM_NODEID": "1",
    }
    variables |= {"SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "gpu[07,09-10]"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    options = (
        "--nnodes 3 --node-rank 1 --rdzv-endpoint 10.0.0.7:24567 --rdzv-id 1234567"
    )
    assert slurm.rendezvous_options(JobEnvironment()) == options.split()
    program(programs, "scontrol", "exit 1")
    assert "gpu07:24567" in slurm.rendezvous_options(JobEnvironment())


RUNNING = "JobState=RUNNING PreemptTime=None"
PREEMPTED = "JobState=RUNNING PreemptTime=2026-01-01T00:00:00"
CANCELLED = "JobState=COMPLETING PreemptTime=None"


def waits(code: int) -> str:
    """Returns a program that ends with an exit code when it receives SIGTERM."""
    return (
        f"import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )


def ends(code: int) -> str:
    return f"import sys; sys.exit({code})"


CASES = {
    # signal, rank, output of SLURM about the job, command -> is requeued, exit code
    "before the time limit": (signal.SIGUSR2, 0, RUNNING, waits(75), True, 255),
    "preempted with a warning": (signal.SIGUSR2, 0, PREEMPTED, waits(75), True, 255),
    "preempted without a warning": (signal.SIGTERM, 0, PREEMPTED, waits(75), True, 255),
    "asked by a user": (signal.SIGUSR1, 0, RUNNING, waits(138), True, 255),
    "asked on another node": (None, 0, RUNNING, ends(75), True, 255),
    "not the first node": (signal.SIGUSR2, 1, RUNNING, waits(75), False, 0),
    "cancelled": (signal.SIGTERM, 0, CANCELLED, waits(75), False, 143),
    "failure on another node": (signal.SIGTERM, 0, RUNNING, waits(75), False, 143),
    "finished": (signal.SIGTERM, 0, PREEMPTED, waits(0), False, 0),
    "mistake": (None, 0, RUNNING, ends(2), False, 2),
    "mistake on all nodes": (signal.SIGTERM, 0, RUNNING, waits(2), False, 2),
    "failure": (None, 1, RUNNING, ends(1), False, 1),
    "killed": (None, 0, RUNNING, "import os; os.kill(os.getpid(), 9)", False, 137),
}


@pytest.mark.spawn
def test_a_job_is_requeued_if_it_was_asked_to_stop(tmp_path):
    jobs = {}
    for number, (name, (_, rank, state, code, _, _)) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        requeue = f'echo "$@" > {folder}/requeued'
        program(folder, "scontrol", f'[ "$1" = requeue ] && {requeue} || echo {state}')
        (folder / "code.py").write_text(code)
        program(folder, "python", f"exec {sys.executable} {folder}/code.py")
        submission = DelayedSubmission(slurm.NodeTask(("train",)))
        submission.set_timeout(1440, slurm.MAX_NUM_TIMEOUTS)
        submission.dump(folder / "7_submitted.pkl")
        frame = (
            "import sys; from submitit.core.submission import process_job; "
            f"sys.executable = '{folder}/python'; process_job('{folder}')"
        )
        env = {
            "SUBMITIT_EXECUTOR": "slurm",
            "SLURM_JOB_ID": "7",
            "SLURM_PROCID": str(rank),
        }
        env["PATH"] = f"{folder}:{os.environ['PATH']}"
        log = (folder / "log").open("w")
        jobs[name] = subprocess.Popen(
            [sys.executable, "-c", frame],
            cwd=ROOT,
            env=os.environ | env,
            stdout=log,
            stderr=log,
        )
    results, expected = {}, {}
    for number, (name, (signum, *_, requeued, code)) in enumerate(CASES.items()):
        folder = tmp_path / str(number)
        if signum is not None:
            deadline = time.monotonic() + 60
            while "ready" not in (folder / "log").read_text():
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            jobs[name].send_signal(signum)
        ended = jobs[name].wait(60)
        was_requeued = (folder / "requeued").exists()
        if was_requeued:
            assert (folder / "requeued").read_text() == "requeue 7\n"
            assert task_of(f"{folder}/7_submitted.pkl") == slurm.NodeTask(("train",))
        results[name] = (was_requeued, ended)
        expected[name] = (requeued, code)
    assert results == expected
