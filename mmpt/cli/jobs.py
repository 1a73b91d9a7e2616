"""Job types: how many processes each has, on which devices, and the command line that a job is."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import mmpt
from mmpt.config import RunConfig
from mmpt.config.fairseq_args import RESUME_DROPS, fairseq_flags
from mmpt.errors import LaunchError
from mmpt.registry import did_you_mean
from mmpt.utils.log import get_logger

PREDICT = "local_predict"
TRAINING_PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
JOB_TYPES = (*TRAINING_PROCESSES, PREDICT)
HALF_PRECISION = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PACKAGE = Path(mmpt.__file__).parent
INSTALL_FAIRSEQ = (
    "READTHEDOCS=1 pip install --no-deps --no-build-isolation "
    f"-r {PACKAGE / 'requirements-fairseq.txt'}"
)
logger = get_logger(__name__)


def choose_job_type(asked: str | None, config: RunConfig) -> str:
    """Returns the job type: `asked` (the command line), else the YAML's `task_type`, else
    `local_single`.

    Raises:
        LaunchError: no such type, a cluster's type, or a type that does not fit the config.
    """
    job_type = asked or config.task_type or "local_single"
    if job_type not in JOB_TYPES:
        problem = f"no job type is called `{job_type}`.{did_you_mean(job_type, list(JOB_TYPES))}"
        if not asked and job_type.startswith("sweep_"):
            problem = f"`task_type` is `{job_type}`, a cluster's job type."
        types = [f"{name} ({_count(size)})" for name, size in TRAINING_PROCESSES.items()]
        raise LaunchError(
            f"{config.path}: {problem} Say where to run it with --jobtype, one of "
            f"{', '.join(types)}, {PREDICT}."
        )
    if config.is_test != (job_type == PREDICT):
        kind, fitting = "a training", ", ".join(TRAINING_PROCESSES)
        if config.is_test:
            kind, fitting = "an evaluation", PREDICT
        raise LaunchError(
            f"{config.path} is {kind} config (evaluations have `dataset.split: test`); use "
            f"--jobtype {fitting}, not {job_type}."
        )
    return job_type


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def training_command(
    config: RunConfig, yaml: str, job_type: str, num_gpus: int, *, resume: bool
) -> list[str]:
    """Returns the command line of a training job, one argv item each.

    Each process has a GPU. On a machine without any, the processes run on the CPU, without half
    precision.

    Args:
        yaml: the file that the training processes read.
        num_gpus: GPUs of this machine that may be used.
        resume: continue from `checkpoint_last.pt`: leave out what would start anew.
    Raises:
        LaunchError: there are GPUs, but fewer than processes.
    """
    size = TRAINING_PROCESSES[job_type]
    on_gpu = num_gpus > 0 and not config.option("common", "cpu")
    drops = list(RESUME_DROPS) if resume else []
    if on_gpu and num_gpus < size:
        fitting = [name for name, count in TRAINING_PROCESSES.items() if count <= num_gpus]
        raise LaunchError(
            f"--jobtype {job_type} needs {size} GPUs, but this machine has {num_gpus}; use "
            f"--jobtype {fitting[-1]}."
        )
    if not on_gpu:
        half = [name for name in HALF_PRECISION if config.option("common", name)]
        without = f", without {' and '.join(half)}" if half else ""
        logger.info("no GPU: running %s on the CPU%s", _count(size), without)
        drops += half
    command = [_fairseq_train(), yaml, "--user-dir", _user_dir(), "--task", "mmtask"]
    command += ["--arch", "mmarch", "--criterion", "mmloss"]
    if size > 1 or num_gpus > 1:  # one process on many GPUs must be told so
        command += ["--distributed-world-size", str(size)]
    command += fairseq_flags(config, without=tuple(drops))
    if config.dataset.val_path is None and "--disable-validation" not in command:
        command += ["--disable-validation"]
    if size > 1 and "--ddp-backend" not in command:
        command += ["--ddp-backend", "no_c10d"]
    if not on_gpu:
        command += [] if "--cpu" in command else ["--cpu"]
        command += ["--distributed-backend", "gloo"] if size > 1 else []
    if size == 1:
        return command
    return [_python(), "-m", "mmpt.cli.processes", str(size), *command]


def predict_command(yamls: Sequence[str]) -> list[str]:
    """Returns the command line of evaluations, which one process runs one after another."""
    return [_python(), "-m", "mmpt.cli.predict", *yamls]


def require_fairseq() -> None:
    """Raises LaunchError with the install command when there is no `fairseq-train`."""
    if shutil.which(_fairseq_train()) is None:
        raise LaunchError(
            "fairseq is not installed (no `fairseq-train` found); install it with\n  "
            f"{INSTALL_FAIRSEQ}"
        )


def _user_dir() -> str:
    """Returns the folder of this package, as `mmpt` if the current folder holds it."""
    return "mmpt" if os.path.exists("mmpt") and PACKAGE.samefile("mmpt") else str(PACKAGE)


def _python() -> str:
    return _program("python", Path(sys.executable))


def _fairseq_train() -> str:
    return _program("fairseq-train", Path(sys.executable).with_name("fairseq-train"))


def _program(name: str, own: Path) -> str:
    """Returns the path of `own`, a program of this environment; its `name` alone when PATH finds
    this one, or when there is none.
    """
    if not own.exists():
        return name
    found = Path(shutil.which(name) or "/")
    # In a virtual environment, python is a link to one that has other packages.
    same = found.samefile(own) and found.parent.samefile(own.parent)
    return name if same else str(own)
