"""The command line of the processes of a training, from its config."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import mmpt
from mmpt.cli.nodes import Nodes
from mmpt.config import RunConfig
from mmpt.config.run import RESETS, fairseq_flags
from mmpt.errors import LaunchError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

HALF_PRECISION = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PACKAGE = Path(mmpt.__file__).parent
INSTALL_FAIRSEQ = (
    "READTHEDOCS=1 pip install --no-deps --no-build-isolation "
    f"-r {PACKAGE / 'requirements-fairseq.txt'}"
)


def count_processes(processes: int) -> str:
    """Returns a number of processes as text."""
    return "1 process" if processes == 1 else f"{processes} processes"


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
    words = [
        program("torchrun"),
        *nodes.torchrun_options(),
        "--nproc-per-node",
        str(size),
    ]
    return [*words, "-m", "mmpt.train", *command]


def require_fairseq() -> None:
    """Raises LaunchError with the install command when there is no `fairseq-train`."""
    if shutil.which(program("fairseq-train")) is None:
        raise LaunchError(
            "fairseq is not installed (no `fairseq-train` found); install it with\n  "
            f"{INSTALL_FAIRSEQ}"
        )


def program(name: str) -> str:
    """Returns the path of a program of this environment, `python` or one next to it; its `name`
    alone when PATH finds this one, or when there is none.
    """
    own = Path(sys.executable)
    if name != "python":
        own = own.with_name(name)
    if not own.exists():
        return name
    found = Path(shutil.which(name) or "/")
    # In a virtual environment, python is a link to one that has other packages.
    same = found.samefile(own) and found.parent.samefile(own.parent)
    return name if same else str(own)
