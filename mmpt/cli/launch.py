"""`mmpt train`: makes, prints and runs the command line of a YAML and a job type."""

import importlib
import os
import shlex
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import Annotated, NamedTuple

from typer import Argument, Option

from mmpt.cli import job
from mmpt.cli.main import CONTINUE, Command, Overrides
from mmpt.cli.nodes import ONE_NODE, TIMEOUT_S, Nodes
from mmpt.config import RunConfig, load_config
from mmpt.config.loader import save_resolved
from mmpt.config.yaml_files import YAML_SUFFIXES
from mmpt.errors import REQUEUE_CODE, LaunchError
from mmpt.utils.killed import STOP_SIGNALS
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

STOPPED = {128 + signum: signum for signum in (signal.SIGINT, *STOP_SIGNALS)}
STOPPED[REQUEUE_CODE] = signal.SIGTERM
"""Exit codes of a job that was asked to stop -> the signal that asked, as far as it is known."""

CPU_SAMPLE_S = 0.1
"""Seconds in which the use of the cores is measured before a job starts."""
MAX_BUSY_CORES = 0.5
"""Number of busy cores up to which a machine counts as free."""


@dataclass(frozen=True)
class Options:
    """The arguments and options of the command."""

    yamls: Annotated[
        str, Argument(metavar="YAML[,YAML..]", help="Files to run one after another.")
    ]
    overrides: Overrides = None
    jobtype: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help=f"One of {', '.join(job.JOB_TYPES)}. Default: the YAML's `task_type`.",
            autocompletion=lambda: [*job.TRAINING_PROCESSES, job.PREDICT, job.SLURM],
        ),
    ] = None
    dryrun: Annotated[
        bool,
        Option(
            "--dryrun", help="Print the command; check no data, write and run nothing."
        ),
    ] = False
    nnodes: Annotated[
        str,
        Option(
            metavar="N|MIN:MAX", help="Number of machines. Run the command on each."
        ),
    ] = "1"
    node_rank: Annotated[
        int | None,
        Option(metavar="K", help="Number of this machine, from 0."),
    ] = None
    rdzv_endpoint: Annotated[
        str,
        Option(metavar="HOST:PORT", help="Machine 0, and a free port on it."),
    ] = ""
    rdzv_id: Annotated[
        str, Option(metavar="NAME", help="Name of the job, the same on all machines.")
    ] = ONE_NODE.run_id
    rdzv_timeout: Annotated[
        int,
        Option(metavar="SECONDS", help="Longest time to wait for the other machines."),
    ] = TIMEOUT_S
    max_restarts: Annotated[
        int,
        Option(metavar="N", help="Restarts from the last checkpoint after failures."),
    ] = 0

    @property
    def args(self) -> list[str]:
        """The YAMLs, the overrides and, at any place among them, options of `mmpt predict`."""
        return [self.yamls, *(self.overrides or ())]

    def parse_nodes(self) -> Nodes:
        """Returns the machines of the job."""
        return Nodes.parse(
            self.nnodes,
            self.node_rank,
            self.rdzv_endpoint,
            self.rdzv_id,
            self.max_restarts,
            self.rdzv_timeout,
        )


class Group(NamedTuple):
    """Configs that run together: one training run, or evaluations in one process."""

    job_type: str
    configs: list[RunConfig]


def train(options: Options) -> int:
    """Train or evaluate what YAML files describe.

    Evaluations also take the options of `mmpt predict`, such as --allow-missing. Write options that
    have a value with an equals sign, such as --device=cpu.
    """
    yield_busy_cores()
    nodes = options.parse_nodes()
    nodes.set_environment()
    flags = [arg for arg in options.args if arg.startswith("-")]
    plain = [arg for arg in options.args if not arg.startswith("-")]
    paths, *settings = plain or [""]
    groups = _read_yamls(paths, settings, flags, options.jobtype, nodes)
    if any(group.job_type == job.SLURM for group in groups):
        all_configs = list(chain.from_iterable(group.configs for group in groups))
        _submit(all_configs, options, nodes)
        return 0
    for number, group in enumerate(groups):
        overridden = bool(settings)
        if group.configs[0].is_test:
            code = _predict(group.configs, flags, overridden, options.dryrun)
        else:
            # Each training run has a rendezvous of its own, on the same port.
            run_id = f"{nodes.run_id}-{number}" if number else nodes.run_id
            own_nodes = replace(nodes, run_id=run_id)
            code = _train(group, options, own_nodes, overridden)
        if code:
            return code
    return 0


def _read_yamls(
    paths: str,
    settings: Sequence[str],
    flags: Sequence[str],
    jobtype: str | None,
    nodes: Nodes,
) -> list[Group]:
    """Reads all YAMLs, before the first one runs.

    Args:
        paths: the files, separated by commas.
        settings: overrides.
        flags: options that only evaluations have.
        jobtype: the job type that was asked for.
        nodes: the machines of the job.
    Returns:
        The configs in groups. Each training run is a group of its own. Consecutive evaluations on
        this machine are one group, which shares a table.
    Raises:
        ConfigError: a YAML has mistakes.
        LaunchError: a YAML does not fit the other arguments.
    """
    groups: list[Group] = []
    for path in paths.split(","):
        if not path.endswith(YAML_SUFFIXES):
            raise LaunchError(
                f"{path or 'an empty name'}: only .yaml files can be launched."
            )
        config = load_config(path, settings)
        job_type = job.choose_job_type(jobtype, config)
        if config.is_test and nodes.largest > 1:
            raise LaunchError(
                f"--nnodes {nodes.largest}: evaluations run on one machine."
            )
        if flags and not config.is_test:
            raise LaunchError(
                f"unknown options: {' '.join(flags)}; only evaluations take the options of "
                "`mmpt predict`."
            )
        if groups and groups[-1].job_type == job_type == job.PREDICT:
            groups[-1].configs.append(config)
        else:
            groups.append(Group(job_type, [config]))
    return groups


def _submit(configs: Sequence[RunConfig], options: Options, nodes: Nodes) -> None:
    """Checks YAMLs, and submits a SLURM job that runs them."""
    from mmpt.cli import slurm  # deferred: not needed otherwise

    if not options.dryrun:
        for config in configs:
            job.check(config)
    job_type = options.jobtype or configs[0].task_type or job.SLURM
    slurm.submit_yamls(configs, options.args, job_type, nodes, options.dryrun)


def _train(group: Group, options: Options, nodes: Nodes, overridden: bool) -> int:
    """Prepares a training job, runs it and returns the exit code. A dry run prints the command.

    Raises:
        KeyboardInterrupt: the job was asked to stop.
    """
    (config,) = group.configs
    size = job.num_processes(group.job_type)
    num_threads = None
    if not (job.count_gpus() or options.dryrun):
        num_threads = use_one_thread()
    with ExitStack() as held:
        command = job.prepare(
            config,
            size,
            size * nodes.largest,
            overridden,
            held,
            is_node_0=nodes.is_node_0,
            dry_run=options.dryrun,
        )
        whole = shlex.join(job.job_command(size, nodes, command))
        if options.dryrun:
            print(f"launching {whole}")
            return 0
        count = job.count_processes(size)
        print(f"launching {config.path} in {count}", flush=True)
        from mmpt.cli import processes  # deferred: imports torch

        if num_threads:
            # Forked processes then need not import it again.
            importlib.import_module("mmpt.tasks.fairseqmmtask")
        os.environ[job.CONFIG_VARIABLE] = config.fingerprint
        code = processes.run(
            "mmpt.train", command, size, nodes, num_threads=num_threads
        )
    if code in STOPPED:
        raise KeyboardInterrupt(STOPPED[code])
    return code


def _predict(
    configs: Sequence[RunConfig],
    flags: Sequence[str],
    overridden: bool,
    dry_run: bool,
) -> int:
    """Checks evaluations, runs them and returns the exit code.

    Args:
        configs: the evaluations, which run in one process.
        flags: options of `mmpt predict`.
        overridden: overrides change settings of the YAMLs. Copies with the new settings are then
            written and scored.
        dry_run: only print the command.
    """
    paths = []
    for config in configs:
        if not dry_run:
            job.check_data(config)
        path = config.path
        if overridden:
            path = os.path.join(config.eval.save_path or "", config.copy_name)
            if not dry_run:
                save_resolved(config, path)
        paths.append(path)
    argv = [*paths, *flags]
    command = [job.program("python"), "-m", "mmpt.cli.predict", *argv]
    print(f"launching {shlex.join(command)}", flush=True)
    if dry_run:
        return 0
    num_threads = None if job.count_gpus() else use_one_thread()
    from mmpt.cli import processes  # deferred: imports torch

    code = processes.run("mmpt.cli.predict", argv, num_threads=num_threads)
    # A request to stop has been reported already.
    return REQUEUE_CODE if STOPPED.get(code) in STOP_SIGNALS else code


def yield_busy_cores() -> None:
    """Makes OpenMP threads sleep while they wait for each other, if other programs use the cores.

    By default they spin, which is faster by a third on free cores. On busy cores it is several
    times slower, because a spinning thread occupies the core that the other thread needs. torch's
    OpenMP reads the variable when torch is imported.
    """
    import psutil  # deferred: not needed to show the help

    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return
    num_cores = psutil.cpu_count() or 1
    num_busy = psutil.cpu_percent(CPU_SAMPLE_S) / 100 * num_cores
    if num_busy > MAX_BUSY_CORES:
        message = "other programs use %.1f of %d cores: OMP_WAIT_POLICY=passive"
        logger.info(message, num_busy, num_cores)
        os.environ["OMP_WAIT_POLICY"] = "passive"


@cache
def use_one_thread() -> int:
    """Limits torch to one thread in this process, and returns the number of threads before.

    Processes can only be forked if no OpenMP threads have run.
    """
    import torch  # deferred: takes seconds, and mistakes in a YAML do not need it

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return num_threads


main = Command(
    train,
    interrupt_message=CONTINUE,
    stop_exit_code=REQUEUE_CODE,
    options=Options,
    ignore_unknown_options=True,  # they are for `mmpt predict`
)
