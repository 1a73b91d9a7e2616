"""Job types: how many processes each has, on which devices, and the command line that a job is."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mmpt
from mmpt.config import RunConfig
from mmpt.config.fairseq_args import RESUME_DROPS, fairseq_flags
from mmpt.errors import LaunchError
from mmpt.registry import did_you_mean

PREDICT = "local_predict"
TRAINING_PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
JOB_TYPES = (*TRAINING_PROCESSES, PREDICT)
HALF_PRECISION = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PACKAGE = Path(mmpt.__file__).parent
INSTALL_FAIRSEQ = (
    "READTHEDOCS=1 pip install --no-deps --no-build-isolation "
    f"-r {PACKAGE / 'requirements-fairseq.txt'}"
)


def choose_job_type(asked: str | None, config: RunConfig) -> str:
    """Return the job type: `asked` (the command line), else the YAML's `task_type`, else
    `local_single`.

    Raises:
        LaunchError: no such type, a cluster's type, or a type that does not fit the config.
    """
    job_type = asked or config.task_type or "local_single"
    types = ", ".join(
        [*(f"{name} ({_count(size)})" for name, size in TRAINING_PROCESSES.items()), PREDICT]
    )
    if not asked and job_type.startswith("sweep_"):
        raise LaunchError(
            f"{config.path}: `task_type` is `{job_type}`, a cluster's job type; say where to run "
            f"it with --jobtype, one of {types}."
        )
    if job_type not in JOB_TYPES:
        hint = did_you_mean(job_type, list(JOB_TYPES))
        raise LaunchError(
            f"{config.path}: no job type is called `{job_type}`.{hint} Job types: {types}."
        )
    if config.is_test and job_type != PREDICT:
        raise LaunchError(
            f"{config.path} is an evaluation config (`dataset.split: test`) and cannot be trained; "
            f"use --jobtype {PREDICT}, not {job_type}."
        )
    if not config.is_test and job_type == PREDICT:
        raise LaunchError(
            f"{config.path} is a training config and cannot be evaluated with {PREDICT}; use "
            f"--jobtype {', '.join(TRAINING_PROCESSES)}, or an evaluation YAML (`dataset.split: "
            "test`)."
        )
    return job_type


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


@dataclass(frozen=True)
class DevicePlan:
    """Where the processes of a training job run."""

    num_processes: int
    on_gpu: bool
    drops: tuple[str, ...] = ()
    """Options of the YAML that do not apply on these devices."""
    note: str | None = None
    """What the user should know about the choice."""


def plan_devices(job_type: str, num_gpus: int, half_precision: Sequence[str] = ()) -> DevicePlan:
    """Return where to run: a GPU per process, or the same number of CPU processes where there is
    none.

    Args:
        num_gpus: GPUs of this machine that may be used.
        half_precision: those of `HALF_PRECISION` that the YAML switches on.
    Raises:
        LaunchError: there are GPUs, but fewer than processes.
    """
    size = TRAINING_PROCESSES[job_type]
    if num_gpus >= size:
        return DevicePlan(size, on_gpu=True)
    if num_gpus > 0:
        fitting = [name for name, processes in TRAINING_PROCESSES.items() if processes <= num_gpus][
            -1
        ]
        raise LaunchError(
            f"--jobtype {job_type} needs {size} GPUs, but this machine has {num_gpus}; use "
            f"--jobtype {fitting}."
        )
    without = f", without {' and '.join(half_precision)}" if half_precision else ""
    return DevicePlan(
        size, False, tuple(half_precision), f"no GPU: running {_count(size)} on the CPU{without}"
    )


def training_command(
    config: RunConfig, yaml: str, plan: DevicePlan, num_gpus: int, resume: bool
) -> list[str]:
    """Return the command line of a training job, one argv item each.

    Args:
        yaml: the file that the training processes read.
        num_gpus: GPUs of this machine (one process on many GPUs must be told so).
        resume: continue from `checkpoint_last.pt`: leave out what would start anew.
    """
    command = [_fairseq_train(), yaml, "--user-dir", _user_dir(), "--task", "mmtask"]
    command += ["--arch", "mmarch", "--criterion", "mmloss"]
    if plan.num_processes > 1 or num_gpus > 1:
        command += ["--distributed-world-size", str(plan.num_processes)]
    command += fairseq_flags(config, without=plan.drops + (RESUME_DROPS if resume else ()))
    if config.dataset.val_path is None and "--disable-validation" not in command:
        command += ["--disable-validation"]
    if plan.num_processes > 1 and "--ddp-backend" not in command:
        command += ["--ddp-backend", "no_c10d"]
    if not plan.on_gpu:
        command += [] if "--cpu" in command else ["--cpu"]
        command += ["--distributed-backend", "gloo"] if plan.num_processes > 1 else []
    if plan.num_processes == 1:
        return command
    return [_python(), "-m", "mmpt.cli.processes", str(plan.num_processes), *command]


def predict_command(yamls: Sequence[str]) -> list[str]:
    """Return the command line of evaluations, which one process runs one after another."""
    return [_python(), "-m", "mmpt.cli.predict", *yamls]


def require_fairseq(command: Sequence[str]) -> None:
    """Raise LaunchError with the install command when `command` needs fairseq and it is not
    there.
    """
    trainer = next((item for item in command if os.path.basename(item) == "fairseq-train"), None)
    if trainer is not None and shutil.which(trainer) is None:
        raise LaunchError(
            "fairseq is not installed (no `fairseq-train` found); install it with\n  "
            f"{INSTALL_FAIRSEQ}"
        )


def _user_dir() -> str:
    """Returns the folder of this package, as `mmpt` if the current folder holds it."""
    return "mmpt" if os.path.exists("mmpt") and PACKAGE.samefile("mmpt") else str(PACKAGE)


def _fairseq_train() -> str:
    """Return `fairseq-train`, or its full path when this interpreter's own is not the first on
    PATH.
    """
    return _own_script("fairseq-train") or "fairseq-train"


def _python() -> str:
    """Return `python` when that is this interpreter, else its full path."""
    return "python" if _same_place(shutil.which("python"), sys.executable) else sys.executable


def _own_script(name: str) -> str | None:
    """Return the script beside this interpreter: its bare name when PATH finds it, its path when
    not, None without.
    """
    path = str(Path(sys.executable).parent / name)
    if not os.access(path, os.X_OK):
        return None
    return name if _same_place(shutil.which(name), path) else path


def _same_place(first: str | None, second: str) -> bool:
    """True when both are the same file in the same folder (a virtual environment's python is a
    link).
    """
    if first is None or not os.path.samefile(first, second):
        return False
    return os.path.samefile(os.path.dirname(first), os.path.dirname(second))
