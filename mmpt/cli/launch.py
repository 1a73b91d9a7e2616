"""`mmpt train`: makes, prints and runs the command line of a YAML and a job type.

A job type says how many processes a job has.
"""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import mmpt
from mmpt.cli import preflight
from mmpt.cli.app import Command, Overrides
from mmpt.cli.processes import execute, run_all, run_ranks
from mmpt.config import RunConfig, load_config
from mmpt.config.loader import save_resolved, with_run_dir
from mmpt.config.run import RESETS, fairseq_flags
from mmpt.errors import LaunchError
from mmpt.registry import did_you_mean
from mmpt.utils.io import writing
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

PREDICT = "local_predict"
TRAINING_PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
JOB_TYPES = (*TRAINING_PROCESSES, PREDICT)
HALF_PRECISION = ("fp16", "bf16", "memory_efficient_fp16", "memory_efficient_bf16")
PACKAGE = Path(mmpt.__file__).parent
INSTALL_FAIRSEQ = (
    "READTHEDOCS=1 pip install --no-deps --no-build-isolation "
    f"-r {PACKAGE / 'requirements-fairseq.txt'}"
)

LOCK_NAME = ".lock"
"""File of a `save_dir` whose lock the launcher holds as long as it trains there."""

INTERRUPTS = {128 + signum for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
"""Exit codes of a job that was asked to stop."""

LOOK_S = 0.1
"""Seconds in which the use of the cores is measured before a job starts."""
FREE_CORES = 0.5
"""Most cores that other programs use on a machine that counts as free."""

GRACE_S = 30.0
"""Seconds that a job has to end before it is killed. `mmpt.cli.processes` waits a shorter time."""


def train(
    yamls: Annotated[
        str, Argument(metavar="YAML[,YAML..]", help="Files to run one after another.")
    ],
    overrides: Overrides = None,
    *,
    jobtype: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help=f"One of {', '.join(JOB_TYPES)}. Default: the YAML's `task_type`.",
        ),
    ] = None,
    dryrun: Annotated[
        bool, Option("--dryrun", help="Print the command; check no data, write and run nothing.")
    ] = False,
) -> int:
    """Train or evaluate what YAML files describe.

    Evaluations also take the options of `mmpt predict`, such as --allow-missing. Write options that
    have a value with an equals sign, such as --device=cpu.
    """
    yield_busy_cores()
    words = [yamls, *(overrides or ())]  # unknown options are among them, at any place
    options = [word for word in words if word.startswith("-")]
    paths, *settings = [word for word in words if not word.startswith("-")] or [""]
    # All YAMLs are checked before the first one runs. Evaluations that follow one another run in
    # one process, and share a table.
    together: list[list[RunConfig]] = []
    for path in paths.split(","):
        if not path.endswith((".yaml", ".yml")):
            raise LaunchError(f"{path or 'an empty name'}: only .yaml files can be launched.")
        config = load_config(path, settings)
        choose_job_type(jobtype, config)
        if options and not config.is_test:
            raise LaunchError(
                f"unknown options: {' '.join(options)}; evaluations alone take `mmpt predict`'s."
            )
        if together and together[-1][0].is_test and config.is_test:
            together[-1].append(config)
        else:
            together.append([config])
    for configs in together:
        with ExitStack() as held:
            if configs[0].is_test:
                code = _predict(configs, options, bool(settings), dryrun)
            else:
                code = _train(configs[0], jobtype, bool(settings), dryrun, held)
            if code in INTERRUPTS and not configs[0].is_test:  # an evaluation has reported it
                raise KeyboardInterrupt(code - 128)
            if code:
                return code
    return 0


main = Command(
    train,
    stopped="run the same command again to continue",
    ignore_unknown_options=True,  # they are for `mmpt predict`
)


def _train(
    config: RunConfig, asked: str | None, overridden: bool, dry_run: bool, held: ExitStack
) -> int:
    """Checks a training job, writes its `config.yaml`, runs it and returns the exit code.

    A dry run only prints the command. `held` keeps other jobs from the folder.
    """
    save_dir = config.save_dir
    last = preflight.last_checkpoint(config)
    config = with_run_dir(config)
    saved = os.path.join(save_dir, "config.yaml")
    yaml = saved if overridden else config.path
    job_type = choose_job_type(asked, config)
    size, num_gpus = TRAINING_PROCESSES[job_type], count_gpus()
    command = training_command(config, yaml, job_type, num_gpus, resume=bool(last))
    if not dry_run:
        require_fairseq()
        num_threads = use_one_thread()
        preflight.check_data(config)
        preflight.check_start(config)
        preflight.check_parts(config)
        lock = os.path.join(save_dir, LOCK_NAME)
        # Two jobs would write over each other's checkpoints and vectors.
        refusal = (
            f"{save_dir}: another job is training in this folder; wait for its end, or choose "
            "another `fairseq.checkpoint.save_dir`."
        )
        with writing(lock):
            held.enter_context(exclusive(lock, "training", refusal))
        save_resolved(config, saved)
    if last:
        logger.info(
            "continuing from %s; to start a new run, choose another fairseq.checkpoint.save_dir",
            last,
        )
    print(f"launching {shlex.join(job_command(size, command))}", flush=True)
    if dry_run:
        return 0
    if num_gpus:
        return run_ranks(size, command, execute, GRACE_S)
    from mmpt.cli.fairseqmmtrain import train  # deferred: seconds

    return run_ranks(size, command, partial(train, num_threads=num_threads), GRACE_S)


def yield_busy_cores() -> None:
    """Makes OpenMP threads sleep while they wait for each other, if other programs use the cores.

    By default they spin. On free cores this is faster by a third. On busy ones it is several times
    slower, as a spinning thread keeps the one that it waits for from running. torch's OpenMP reads
    the variable when it is imported.
    """
    import psutil  # deferred: not needed to show the help

    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    num_cores = psutil.cpu_count() or 1
    num_busy = psutil.cpu_percent(LOOK_S) / 100 * num_cores
    if num_busy > FREE_CORES:
        message = "other programs use %.1f of %d cores: OMP_WAIT_POLICY=passive"
        logger.info(message, num_busy, num_cores)
        os.environ["OMP_WAIT_POLICY"] = "passive"


@cache
def use_one_thread() -> int:
    """Limits torch to one thread in this process, and returns the number of threads before.

    Processes can only be forked if no OpenMP threads have run.
    """
    import torch  # deferred: seconds, and a mistake in a YAML needs none of it

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return num_threads


def _predict(
    configs: Sequence[RunConfig], options: Sequence[str], overridden: bool, dry_run: bool
) -> int:
    """Checks evaluations, runs them and returns the exit code. Overrides go into copies."""
    paths = []
    for config in configs:
        if not dry_run:
            preflight.check_data(config)
        path = config.path
        if overridden:
            path = os.path.join(config.eval.save_path or "", config.copy_name)
            if not dry_run:
                save_resolved(config, path)
        paths.append(path)
    words = [*paths, *options]
    command = [_program("python"), "-m", "mmpt.cli.predict", *words]
    print(f"launching {shlex.join(command)}", flush=True)
    if dry_run:
        return 0
    work = partial(predict, words, use_one_thread())
    return run_all([partial(execute, command, {}) if count_gpus() else work], GRACE_S)


def predict(words: Sequence[str], num_threads: int) -> None:
    """Runs `mmpt predict` in a forked process."""
    import torch  # deferred: seconds

    from mmpt.cli import predict as command  # deferred, as above

    torch.set_num_threads(num_threads)
    sys.exit(command.main(words, name="mmpt predict"))


def count_gpus() -> int:
    """Returns the number of GPUs that PyTorch can use here."""
    import torch  # deferred: seconds, and neither predict jobs nor mistakes in a YAML need it

    return torch.cuda.device_count()


def choose_job_type(asked: str | None, config: RunConfig) -> str:
    """Returns the job type: `asked` (the command line), else the YAML's `task_type`, else
    `local_single`.

    Raises:
        LaunchError: no such type, or one that does not fit the config.
    """
    job_type = asked or config.task_type or "local_single"
    kind, fitting = "a training", TRAINING_PROCESSES
    if config.is_test:
        kind, fitting = "an evaluation", {PREDICT: 1}
    if job_type not in fitting:
        types = ", ".join(f"{name} ({_count(size)})" for name, size in fitting.items())
        raise LaunchError(
            f"{config.path} is {kind} config (evaluations have `dataset.split: test`), which the "
            f"job type `{job_type}` does not run.{did_you_mean(job_type, list(fitting))} Say where "
            f"to run it with --jobtype, one of {types}."
        )
    return job_type


def _count(processes: int) -> str:
    return "1 process" if processes == 1 else f"{processes} processes"


def training_command(
    config: RunConfig, yaml: str, job_type: str, num_gpus: int, *, resume: bool
) -> list[str]:
    """Returns the command line of each process of a training job, one argv item each.

    Each process has a GPU. On a machine without any, the processes run on the CPU, without half
    precision.

    Args:
        yaml: the file that the training processes read.
        num_gpus: GPUs of this machine that may be used.
        resume: continue from `checkpoint_last.pt`. Options that would start a new run are left out.
    Raises:
        LaunchError: there are GPUs, but fewer than processes.
    """
    size = TRAINING_PROCESSES[job_type]
    on_gpu = num_gpus > 0 and not config.option("common", "cpu")
    drops = RESETS.split() if resume else []
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
    here = os.path.exists("mmpt") and PACKAGE.samefile("mmpt")
    command = [_program("fairseq-train"), yaml, "--user-dir", "mmpt" if here else str(PACKAGE)]
    command += ["--task", "mmtask", "--arch", "mmarch", "--criterion", "mmloss"]
    if size > 1 or num_gpus > 1:  # fairseq would otherwise use all GPUs
        command += ["--distributed-world-size", str(size)]
    command += fairseq_flags(config, without=drops)
    if config.dataset.val_path is None and "--disable-validation" not in command:
        command += ["--disable-validation"]
    if size > 1 and "--ddp-backend" not in command:
        command += ["--ddp-backend", "no_c10d"]
    if not on_gpu:
        command += [] if "--cpu" in command else ["--cpu"]
        command += ["--distributed-backend", "gloo"] if size > 1 else []
    return command


def job_command(size: int, command: Sequence[str]) -> list[str]:
    """Returns the command line of a job of `size` processes that each run `command`."""
    if size == 1:
        return list(command)
    return [_program("python"), "-m", "mmpt.cli.processes", str(size), *command]


def require_fairseq() -> None:
    """Raises LaunchError with the install command when there is no `fairseq-train`."""
    if shutil.which(_program("fairseq-train")) is None:
        raise LaunchError(
            "fairseq is not installed (no `fairseq-train` found); install it with\n  "
            f"{INSTALL_FAIRSEQ}"
        )


def _program(name: str) -> str:
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
