"""`mmpt train`: makes, prints and runs the command line of a YAML and a job type.

A job type says how many processes a job has on each machine.
"""

import importlib
import os
import re
import shlex
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import Annotated

from typer import Argument, Option

from mmpt.cli import preflight
from mmpt.cli.agreement import CONFIG_VARIABLE, config_fingerprint
from mmpt.cli.main import CONTINUE, Command, Overrides
from mmpt.cli.nodes import ONE_NODE, TIMEOUT_S, Nodes
from mmpt.cli.training_command import (
    count_processes,
    job_command,
    program,
    require_fairseq,
    training_command,
)
from mmpt.config import RunConfig, load_config
from mmpt.config.loader import save_resolved, with_run_dir
from mmpt.errors import REQUEUE_CODE, LaunchError
from mmpt.registry import did_you_mean
from mmpt.utils.io import writing
from mmpt.utils.killed import ASKS
from mmpt.utils.lock import exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

PREDICT = "local_predict"
TRAINING_PROCESSES = {"local_single": 1, "local_small": 2, "local_big": 8}
SLURM = "slurm"
JOB_TYPES = (*TRAINING_PROCESSES, "local_N", PREDICT, SLURM)
LOCK_NAME = ".lock"
"""File of a `save_dir` whose lock the launcher holds as long as it trains there."""

STOPPED = {128 + signum: signum for signum in (signal.SIGINT, signal.SIGHUP, *ASKS)}
STOPPED[REQUEUE_CODE] = signal.SIGTERM
"""Exit codes of a job that was asked to stop -> the signal that asked, as far as it is known."""

LOOK_S = 0.1
"""Seconds in which the use of the cores is measured before a job starts."""
FREE_CORES = 0.5
"""Most cores that other programs use on a machine that counts as free."""


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
        bool,
        Option(
            "--dryrun", help="Print the command; check no data, write and run nothing."
        ),
    ] = False,
    nnodes: Annotated[
        str,
        Option(
            metavar="N|MIN:MAX", help="Number of machines. Run the command on each."
        ),
    ] = "1",
    node_rank: Annotated[
        int | None,
        Option(metavar="K", help="Number of this machine, from 0."),
    ] = None,
    rdzv_endpoint: Annotated[
        str,
        Option(metavar="HOST:PORT", help="Machine 0, and a free port on it."),
    ] = "",
    rdzv_id: Annotated[
        str, Option(metavar="NAME", help="Name of the job, the same on all machines.")
    ] = (ONE_NODE.run_id),
    rdzv_timeout: Annotated[
        int,
        Option(metavar="SECONDS", help="Longest time to wait for the other machines."),
    ] = TIMEOUT_S,
    max_restarts: Annotated[
        int,
        Option(metavar="N", help="Restarts from the last checkpoint after failures."),
    ] = 0,
) -> int:
    """Train or evaluate what YAML files describe.

    Evaluations also take the options of `mmpt predict`, such as --allow-missing. Write options that
    have a value with an equals sign, such as --device=cpu.
    """
    yield_busy_cores()
    nodes = Nodes.parse(
        nnodes, node_rank, rdzv_endpoint, rdzv_id, max_restarts, rdzv_timeout
    )
    nodes.set_environment()
    words = [yamls, *(overrides or ())]  # unknown options are among them, at any place
    options = [word for word in words if word.startswith("-")]
    paths, *settings = [word for word in words if not word.startswith("-")] or [""]
    together = _read_yamls(paths, settings, options, jobtype, nodes)
    every = list(chain.from_iterable(together))
    if any(choose_job_type(jobtype, config) == SLURM for config in every):
        _submit(every, words, jobtype, nodes, dryrun)
        return 0
    for number, configs in enumerate(together):
        # Each training is a meeting of its own, on the same port.
        meeting = replace(nodes, run_id=f"{rdzv_id}-{number}" if number else rdzv_id)
        if configs[0].is_test:
            code = _predict(configs, options, bool(settings), dryrun)
            if STOPPED.get(code) in ASKS:  # it has reported that
                code = REQUEUE_CODE
        else:
            with ExitStack() as held:
                code = _train(
                    configs[0], jobtype, meeting, bool(settings), dryrun, held
                )
            if code in STOPPED:
                raise KeyboardInterrupt(STOPPED[code])
        if code:
            return code
    return 0


def _read_yamls(
    paths: str,
    settings: Sequence[str],
    options: Sequence[str],
    jobtype: str | None,
    nodes: Nodes,
) -> list[list[RunConfig]]:
    """Reads all YAMLs, before the first one runs.

    Args:
        paths: the files, separated by commas.
        settings: overrides.
        options: options that only evaluations have.
        jobtype: the job type that was asked for.
        nodes: the machines of the job.
    Returns:
        Each training, and each group of evaluations that follow one another. A group runs in one
        process, and shares a table.
    Raises:
        ConfigError: a YAML has mistakes.
        LaunchError: a YAML does not fit the other arguments.
    """
    together: list[list[RunConfig]] = []
    for path in paths.split(","):
        if not path.endswith((".yaml", ".yml")):
            raise LaunchError(
                f"{path or 'an empty name'}: only .yaml files can be launched."
            )
        config = load_config(path, settings)
        choose_job_type(jobtype, config)
        if config.is_test and nodes.largest > 1:
            raise LaunchError(
                f"--nnodes {nodes.largest}: evaluations run on one machine."
            )
        if options and not config.is_test:
            raise LaunchError(
                f"unknown options: {' '.join(options)}; evaluations alone take `mmpt predict`'s."
            )
        if together and together[-1][0].is_test and config.is_test:
            together[-1].append(config)
        else:
            together.append([config])
    return together


main = Command(
    train,
    stopped=CONTINUE,
    asked_code=REQUEUE_CODE,
    ignore_unknown_options=True,  # they are for `mmpt predict`
)


def _submit(
    configs: Sequence[RunConfig],
    words: Sequence[str],
    asked: str | None,
    nodes: Nodes,
    dry_run: bool,
) -> None:
    """Checks YAMLs, and submits a SLURM job that runs them."""
    from mmpt.cli import slurm  # deferred: not needed otherwise

    if not dry_run:
        for config in configs:
            check(config)
    slurm.submit_yamls(
        configs, words, asked or configs[0].task_type or SLURM, nodes, dry_run
    )


def _train(
    config: RunConfig,
    asked: str | None,
    nodes: Nodes,
    overridden: bool,
    dry_run: bool,
    held: ExitStack,
) -> int:
    """Prepares a training job, runs it and returns the exit code. A dry run prints the command."""
    size, num_gpus = num_processes(choose_job_type(asked, config)), count_gpus()
    num_threads = None
    if not (num_gpus or dry_run):
        num_threads = use_one_thread()
    command = prepare(
        config,
        size,
        size * nodes.largest,
        overridden,
        held,
        leads=nodes.leads,
        dry_run=dry_run,
    )
    print(f"launching {shlex.join(job_command(size, nodes, command))}", flush=True)
    if dry_run:
        return 0
    from mmpt.cli import processes  # deferred: seconds

    if num_threads:
        # Before processes are forked.
        importlib.import_module("mmpt.cli.fairseqmmtrain")
    os.environ[CONFIG_VARIABLE] = config_fingerprint(config)
    return processes.run("mmpt.train", command, size, nodes, num_threads=num_threads)


def prepare(
    config: RunConfig,
    size: int,
    total: int,
    overridden: bool,
    held: ExitStack,
    *,
    leads: bool = True,
    dry_run: bool = False,
) -> list[str]:
    """Checks a training job, writes its `config.yaml` and returns the command line of a process.

    Args:
        config: the job.
        size: number of processes on this machine.
        total: number of processes on all machines.
        overridden: overrides change settings of the YAML. The processes then read `config.yaml`.
        held: keeps other jobs from the folder until it is closed.
        leads: on one machine only. It holds the lock of the folder and writes the file.
        dry_run: neither check nor write anything.
    Raises:
        UserError: the job cannot run.
    """
    save_dir = config.save_dir
    last = preflight.last_checkpoint(config)
    config = with_run_dir(config)
    saved = os.path.join(save_dir, "config.yaml")
    yaml = saved if overridden else config.path
    command = training_command(
        config, yaml, size, total, count_gpus(), resume=bool(last)
    )
    if not dry_run:
        check(config, leads=leads)
    if leads and not dry_run:
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
    return command


def check(config: RunConfig, *, leads: bool = True) -> None:
    """Raises UserError if a job cannot run, because files or packages are missing or do not fit.

    Args:
        leads: this is the first node of the job.
    """
    if config.is_test:
        preflight.check_data(config)
        return
    require_fairseq()
    preflight.check_data(config)
    preflight.check_start(config, leads=leads)
    preflight.check_parts(config)


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
    configs: Sequence[RunConfig],
    options: Sequence[str],
    overridden: bool,
    dry_run: bool,
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
    command = [program("python"), "-m", "mmpt.cli.predict", *words]
    print(f"launching {shlex.join(command)}", flush=True)
    if dry_run:
        return 0
    num_threads = None if count_gpus() else use_one_thread()
    from mmpt.cli import processes  # deferred: seconds

    return processes.run("mmpt.cli.predict", words, num_threads=num_threads)


def count_gpus() -> int:
    """Returns the number of GPUs that PyTorch can use here."""
    # deferred: seconds, and neither predict jobs nor mistakes in a YAML need it
    import torch

    return torch.cuda.device_count()


def choose_job_type(asked: str | None, config: RunConfig) -> str:
    """Returns the job type: `asked` (the command line), else the YAML's `task_type`, else
    `local_single`. The release's job types of clusters, `sweep_*`, are `slurm`.

    Raises:
        LaunchError: no such type, or one that does not fit the config.
    """
    job_type = asked or config.task_type or "local_single"
    if job_type == SLURM or job_type.startswith("sweep_"):
        return SLURM
    kind, fitting = "a training", TRAINING_PROCESSES
    if config.is_test:
        kind, fitting = "an evaluation", {PREDICT: 1}
    if job_type not in fitting and (config.is_test or not num_processes(job_type)):
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
    """Returns the number of processes of a training's job type on each machine, or 0."""
    number = re.fullmatch(r"local_(\d{1,4})", job_type)
    return int(number[1]) if number else TRAINING_PROCESSES.get(job_type, 0)
