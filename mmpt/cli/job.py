"""A job on this machine: its type, the files that it needs, and the command line of its processes.

A job type determines how many processes a job has on each machine.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import mmpt
from mmpt.cli.doctor_packages import INSTALL_FAIRSEQ
from mmpt.cli.nodes import Nodes
from mmpt.config import RunConfig
from mmpt.config.loader import save_resolved, with_run_dir
from mmpt.config.run import (
    DEMO_COMMANDS,
    LOCK_NAME,
    RESETS,
    fairseq_flags,
    last_checkpoint,
)
from mmpt.config.schema import INPUT
from mmpt.errors import DataError, LaunchError
from mmpt.registry import did_you_mean
from mmpt.utils.io import writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger
from mmpt.utils.run_loggers import check_packages

logger = get_logger(__name__)

PREDICT = "local_predict"
TRAINING_PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
SLURM = "slurm"
JOB_TYPES = (*TRAINING_PROCESSES, "local_N", PREDICT, SLURM)
CONFIG_VARIABLE = "MMPT_CONFIG_FINGERPRINT"
"""Variable that passes the fingerprint of the settings from the launcher to its processes."""

HALF_PRECISION = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PACKAGE = Path(mmpt.__file__).parent


def choose_job_type(asked: str | None, config: RunConfig) -> str:
    """Returns the job type: `asked` (the command line), else the YAML's `task_type`, else
    `local_single`. For the release's cluster job types (`sweep_*`), it is `slurm`.

    Raises:
        LaunchError: the type does not exist, or does not fit the config.
    """
    job_type = asked or config.task_type or "local_single"
    if job_type == SLURM or job_type.startswith("sweep_"):
        return SLURM
    kind, fitting = "a training", TRAINING_PROCESSES
    if config.is_test:
        kind, fitting = "an evaluation", {PREDICT: 1}
    is_local_n = not config.is_test and num_processes(job_type) > 0
    if job_type not in fitting and not is_local_n:
        types = ", ".join(
            f"{name} ({count_processes(size)})" for name, size in fitting.items()
        )
        types += "" if config.is_test else ", local_N (N processes)"
        types += ", slurm (a job on a cluster)"
        raise LaunchError(
            f"{config.path} is {kind} config (evaluations have `dataset.split: test`), which the "
            f"job type `{job_type}` does not run.{did_you_mean(job_type, list(fitting))} Say where "
            f"to run it with --jobtype, one of {types}."
        )
    return job_type


def num_processes(job_type: str) -> int:
    """Returns the number of processes on each machine. It is 0 if training has no such job type."""
    number = re.fullmatch(r"local_(\d{1,4})", job_type)
    return int(number[1]) if number else TRAINING_PROCESSES.get(job_type, 0)


def count_processes(processes: int) -> str:
    """Returns a number of processes as text."""
    return "1 process" if processes == 1 else f"{processes} processes"


def count_gpus() -> int:
    """Returns the number of GPUs that PyTorch can use here."""
    # deferred: takes seconds, and neither predict jobs nor mistakes in a YAML need it
    import torch

    return torch.cuda.device_count()


def prepare(
    config: RunConfig,
    size: int,
    total: int,
    overridden: bool,
    held: ExitStack,
    *,
    is_node_0: bool = True,
    dry_run: bool = False,
) -> list[str]:
    """Checks a training job, writes its `config.yaml` and returns the command line of a process.

    Args:
        config: the job.
        size: number of processes on this machine.
        total: number of processes on all machines.
        overridden: overrides change settings of the YAML. The processes then read `config.yaml`.
        held: keeps the lock of the folder, which other jobs respect, until it is closed.
        is_node_0: True on one machine of the job, which locks the folder and writes `config.yaml`.
        dry_run: neither check nor write anything.
    Raises:
        UserError: the job cannot run.
    """
    save_dir = config.save_dir
    last = last_checkpoint(save_dir)
    config = with_run_dir(config)
    saved = os.path.join(save_dir, "config.yaml")
    yaml = saved if overridden else config.path
    command = training_command(
        config, yaml, size, total, count_gpus(), resume=bool(last)
    )
    if not dry_run:
        check(config, is_node_0=is_node_0)
    if is_node_0 and not dry_run:
        _lock(save_dir, held)
        save_resolved(config, saved)
    if last:
        logger.info(
            "continuing from %s; to start a new run, choose another fairseq.checkpoint.save_dir",
            last,
        )
    return command


def _lock(save_dir: str, held: ExitStack) -> None:
    """Keeps other jobs from a folder until `held` is closed.

    Two jobs would write over each other's checkpoints and vectors.

    Raises:
        DataError: another job trains there, or the folder cannot be written.
    """
    lock = os.path.join(save_dir, LOCK_NAME)
    refusal = (
        f"{save_dir}: another job is training in this folder; wait until it ends, or choose "
        "another `fairseq.checkpoint.save_dir`."
    )
    with writing(lock):
        held.enter_context(exclusive(lock, "training", refusal))


def check(config: RunConfig, *, is_node_0: bool = True) -> None:
    """Raises UserError if a job cannot run, because files or packages are missing or do not fit.

    Args:
        is_node_0: this is the first node of the job.
    """
    if config.is_test:
        check_data(config)
        return
    require_fairseq()
    check_packages(config.loggers or ())
    check_data(config)
    # deferred: imports torch
    from mmpt.tasks import Task
    from mmpt.tasks.checks import check_parts, check_start

    check_start(config, is_node_0=is_node_0)
    check_parts(Task.from_config(config))


def require_fairseq() -> None:
    """Raises LaunchError with the install command when there is no `fairseq-train`."""
    if shutil.which(program("fairseq-train")) is None:
        raise LaunchError(
            "fairseq is not installed (no `fairseq-train` found); install it with\n  "
            f"{INSTALL_FAIRSEQ}"
        )


def check_data(config: RunConfig) -> None:
    """Raises DataError naming every data file and folder of `config` that is not there.

    Files inside a folder are checked later, by the parts that read them.
    """
    dataset = config.dataset
    needed = {}  # path -> its key
    for name, field in type(dataset).model_fields.items():
        unused = config.is_test and name in ("train_path", "val_path")
        if INPUT in field.metadata and not unused:
            needed[getattr(dataset, name)] = f"`dataset.{name}`"
    missing = [
        f"  - {path} ({key})\n"
        for path, key in needed.items()
        if path is not None and not os.path.exists(path)
    ]
    if missing:
        raise DataError(
            f"{config.path}: files that it names do not exist:\n{''.join(missing)}"
            "DATASET.md explains how to get or make them; paths are relative to the current "
            "directory.\n"
            f"To try the pipeline without them, run `make demo` or\n  {DEMO_COMMANDS}"
        )


def training_command(
    config: RunConfig, yaml: str, size: int, total: int, num_gpus: int, *, resume: bool
) -> list[str]:
    """Returns the command line of each process of a training job, one argv item each.

    Each process has a GPU. On a machine without any, the processes run on the CPU, without half
    precision.

    Args:
        yaml: the file that the training processes read.
        size: number of processes on this machine.
        total: number of processes on all machines.
        num_gpus: GPUs of this machine that may be used.
        resume: continue from `checkpoint_last.pt`. Options that would start a new run are left out.
    Raises:
        LaunchError: there are GPUs, but fewer than processes.
    """
    on_gpu = num_gpus > 0 and not config.option("common", "cpu")
    drops = RESETS.split() if resume else []
    if on_gpu and num_gpus < size:
        raise LaunchError(
            f"--jobtype local_{size} needs {size} GPUs, but this machine has {num_gpus}; use "
            f"--jobtype local_{num_gpus}."
        )
    if not on_gpu:
        half = [name for name in HALF_PRECISION if config.option("common", name)]
        without = f", without {' and '.join(half)}" if half else ""
        logger.info("no GPU: running %s on the CPU%s", count_processes(size), without)
        drops += half
    here = os.path.exists("mmpt") and PACKAGE.samefile("mmpt")
    command = [
        program("fairseq-train"),
        yaml,
        "--user-dir",
        "mmpt" if here else str(PACKAGE),
    ]
    command += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
    if total > 1 or num_gpus > 1:  # fairseq would otherwise use all GPUs
        command += ["--distributed-world-size", str(total)]
    command += fairseq_flags(config, without=drops)
    if config.dataset.val_path is None and "--disable-validation" not in command:
        command += ["--disable-validation"]
    if total > 1 and "--ddp-backend" not in command:
        command += ["--ddp-backend", "no_c10d"]
    if not on_gpu:
        command += [] if "--cpu" in command else ["--cpu"]
        command += ["--distributed-backend", "gloo"] if total > 1 else []
    return command


def job_command(size: int, nodes: Nodes, command: Sequence[str]) -> list[str]:
    """Returns a command line that does the same as this launcher, on this machine.

    Args:
        size: number of processes on this machine.
        nodes: the machines of the job.
        command: the command line of fairseq.
    """
    if size * nodes.largest == 1:
        return list(command)
    argv = [
        program("torchrun"),
        *nodes.torchrun_options(),
        "--nproc-per-node",
        str(size),
    ]
    return [*argv, "-m", "mmpt.train", *command]


def continued(command: Sequence[str]) -> list[str]:
    """Returns a command line of fairseq that continues from the last checkpoint, if there is one.

    The options that would start a new run are then left out. A job that is started again after a
    failure still has them, because it gets the same command.
    """
    argv = list(command)
    save_dir = argv[argv.index("--save-dir") + 1] if "--save-dir" in argv else ""
    if last_checkpoint(save_dir):
        for name in RESETS.split():
            flag = "--" + name.replace("_", "-")
            if flag in argv:
                begin = argv.index(flag)
                num_args = 2 if name == "restore_file" else 1  # with its value
                del argv[begin : begin + num_args]
    return argv


def program(name: str) -> str:
    """Returns the path of a program of this Python environment.

    If the environment lacks the program, or PATH finds this very program, only `name` is returned.

    Args:
        name: `python`, or the name of a program in the same folder.
    """
    own = Path(sys.executable)
    if name != "python":
        own = own.with_name(name)
    if not own.exists():
        return name
    found = Path(shutil.which(name) or "/")
    # The folders are compared, too: in a virtual environment, `python` is a link to an interpreter
    # that has other packages.
    same = found.samefile(own) and found.parent.samefile(own.parent)
    return name if same else str(own)
