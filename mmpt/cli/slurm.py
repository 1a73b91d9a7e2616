"""Jobs in SLURM: submits commands of `mmpt` with submitit, and runs them on the nodes of a job.

On each node, one task starts the command and passes signals on to it. SLURM signals a job before
ending it: SIGUSR2 some time before the time limit, SIGUSR2 or SIGTERM before a job with a higher
priority takes the nodes, and SIGTERM when the user cancels it or when another node has failed.
Depending on its configuration, SLURM signals only the tasks, or all of their processes. So a
command may receive a signal twice.

A command that was asked to stop saves its state and ends. submitit's handler of SIGUSR2 then
requeues the job: it starts again with the same id, runs the same command, and continues.
"""

import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from submitit import JobEnvironment, SlurmExecutor
from submitit.core.utils import DelayedSubmission, FailedJobError, FailedSubmissionError

from mmpt.cli.nodes import ONE_NODE, TIMEOUT_S, Nodes
from mmpt.config import RunConfig, SlurmConfig
from mmpt.config.mistakes import validate
from mmpt.config.schema import Section
from mmpt.config.yaml_files import parse_overrides
from mmpt.errors import EXIT_CODE, REQUEUE_CODE, ConfigError, LaunchError
from mmpt.utils.killed import STOP_SIGNALS
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports for the rendezvous of a job's nodes. The job's id chooses one of them, because a node may
run several jobs."""
EXIT_DELAY_S = 15
"""Seconds that a failed node waits before it exits, so that others can fail in the same way.

A mistake in the settings ends each node with the same exit code, but a busy node takes longer to
start Python. When the first node exits, SLURM ends the others. Without the wait, SLURM would end
the busy node with a signal, and report the signal instead of the exit code.
"""
MAX_NUM_TIMEOUTS = 1_000_000
"""Number of times that a job may reach its time limit."""
SIZES = {"big": 8, "small": 2}
"""Number of GPUs of a job whose released YAML names a size, as `task_type: sweep_big` does."""


class Executor(SlurmExecutor):
    """An executor that can also be made where SLURM is not installed, for a dry run."""

    @classmethod
    def affinity(cls) -> int:
        """Returns 2, so that submitit treats SLURM as installed. `_submit` checks this itself."""
        return 2


@dataclass(frozen=True)
class NodeTask:
    """The work of one node of a job: a command of `mmpt`."""

    argv: tuple[str, ...]
    """The command and its arguments."""
    num_nodes: int = 1
    """Number of nodes. Several nodes run one training job together."""

    def __call__(self) -> None:
        """Runs the command, and ends this process with its exit code.

        If the job was asked to stop, node 0 requeues it. The other nodes then exit with 0, because
        a failure would make SLURM kill node 0.

        A user's mistake is always reported by exit code 2, even if SLURM has asked this node to
        stop because another node has found the same mistake.
        """
        job = JobEnvironment()
        # SIGUSR2, unless the user chooses another.
        warning = signal.Signals[f"SIG{job.USR_SIG}"]
        requeue: Any = signal.getsignal(warning)  # submitit has set it
        argv = [sys.executable, "-m", "mmpt", *self.argv]
        if self.num_nodes > 1:
            argv += rendezvous_options(job)

        # Run the command. Every signal that asks the job to stop is passed on to it as SIGTERM.
        process: subprocess.Popen[bytes] | None = None
        asked: list[int] = []

        def pass_on(number: int, _: Any) -> None:
            asked.append(number)
            if process is not None:
                process.terminate()

        for number in STOP_SIGNALS:
            signal.signal(number, pass_on)
        process = subprocess.Popen(argv, preexec_fn=_ignore_sigusr)
        if asked:
            process.terminate()
        code = process.wait()
        if code < 0:
            code = 128 - code  # ended by a signal, which a shell reports in this way

        # Requeue the job if it was asked to stop. Otherwise, exit with the command's code.
        is_stopped = bool(asked) and code != EXIT_CODE
        if code and (is_stopped or code == REQUEUE_CODE):
            if job.global_rank > 0:
                sys.exit(0)
            only_sigterm = set(asked) == {signal.SIGTERM}
            if _should_requeue(job.job_id, is_warned=not only_sigterm):
                requeue(warning, None)
            code = 128 + signal.SIGTERM
        elif code and self.num_nodes > 1:
            # SLURM may signal this node while it waits, or while Python exits. The signals are
            # ignored, so that the exit code is reported.
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            time.sleep(EXIT_DELAY_S)
        sys.exit(code)

    def checkpoint(self) -> DelayedSubmission:
        """Returns the task that a requeued job runs. submitit calls this to requeue a job."""
        return DelayedSubmission(self)


def _ignore_sigusr() -> None:
    """Makes a new process ignore SIGUSR1 and SIGUSR2, for which `pass_on` sends it SIGTERM."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _should_requeue(job_id: str, *, is_warned: bool) -> bool:
    """Returns whether a job that has stopped is to be requeued.

    It is not if the user has cancelled it, if SLURM requeues it, or if another node has failed. In
    these cases, SLURM sends only SIGTERM. It may also do so before a job with a higher priority
    takes the nodes (preemption), and the job is then requeued.

    Args:
        is_warned: False if SIGTERM is the only signal that the job has received.
    """
    shown = _ask("scontrol", "--oneliner", "show", "job", job_id)
    is_preempted = re.search(r"\bPreemptTime=\d", shown)
    return "JobState=RUNNING" in shown and (is_warned or is_preempted is not None)


def rendezvous_options(job: JobEnvironment) -> list[str]:
    """Returns the options of `mmpt train` with which the nodes of a job find each other.

    The address of the first node is the one that SLURM uses, because the name of a node may not
    resolve to an address.
    """
    first = job.hostnames[0]
    shown = _ask("scontrol", "--oneliner", "show", "node", first)
    address = re.search(r"\bNodeAddr=(\S+)", shown)
    port = FIRST_PORT + int(job.raw_job_id) % NUM_PORTS
    options = ["--nnodes", str(job.num_nodes), "--node-rank", str(job.node)]
    options += ["--rdzv-endpoint", f"{address[1] if address else first}:{port}"]
    return [*options, "--rdzv-id", job.raw_job_id]


def _ask(*command: str) -> str:
    """Returns what a program of SLURM prints."""
    return subprocess.run(
        command, capture_output=True, text=True, check=False
    ).stdout.strip()


def submit_yamls(
    configs: Sequence[RunConfig],
    args: Sequence[str],
    job_type: str,
    nodes: Nodes,
    dry_run: bool,
) -> None:
    """Submits a job that trains one YAML, or evaluates several.

    Args:
        configs: the settings of the YAMLs.
        args: the YAMLs, overrides and options of `mmpt train`.
        job_type: the job type that was asked for, which may be one of the release (`sweep_*`).
        nodes: the options that concern nodes. Only `--max-restarts` and `--rdzv-timeout` may differ
            from their defaults.
        dry_run: see `submit`.
    Raises:
        LaunchError: the YAMLs need several jobs, or the job is refused.
    """
    first, section = configs[0], configs[0].slurm
    if len(configs) > 1 and not all(config.is_test for config in configs):
        raise LaunchError(
            "a SLURM job trains one YAML; submit each with a command of its own."
        )
    if first.is_test and section.nodes > 1:
        raise LaunchError(
            f"`slurm.nodes` must be 1 in evaluations, but is {section.nodes}."
        )
    if replace(nodes, max_restarts=0, timeout_s=TIMEOUT_S) != ONE_NODE:
        raise LaunchError(
            "--nnodes, --node-rank, --rdzv-endpoint and --rdzv-id are set by SLURM jobs "
            "themselves; leave them out, and set `slurm.nodes`."
        )
    gpus = section.gpus_per_node
    if gpus is None:
        # A released training YAML may name its size as a job type or in `slurm_config`.
        names = (job_type.removeprefix("sweep_"), str(first.slurm_config))
        sizes = [SIZES[name] for name in names if name in SIZES]
        gpus = sizes[0] if sizes and not first.is_test else 1
    size = gpus or section.processes_per_node
    if job_type.startswith("sweep_"):
        logger.info(
            "%s: the release's job type %s is a SLURM job, here with %d processes on each of %d "
            "nodes; to use this machine, add --jobtype local_%d",
            *(first.path, job_type, size, section.nodes, size),
        )
    command = [
        "train",
        *args,
        "--jobtype",
        "local_predict" if first.is_test else f"local_{size}",
    ]
    if not first.is_test:
        command += ["--max-restarts", str(nodes.max_restarts)]
        command += ["--rdzv-timeout", str(nodes.timeout_s)]
    folder = (first.eval.save_path or "") if first.is_test else first.save_dir
    submit(
        [NodeTask(tuple(command), section.nodes)],
        section,
        first.name,
        Path(folder, "slurm"),
        num_gpus=gpus,
        num_cores=size * (1 + first.num_workers),
        dry_run=dry_run,
    )


def submit(
    tasks: Sequence[NodeTask],
    section: SlurmConfig,
    name: str,
    folder: Path,
    *,
    num_gpus: int,
    num_cores: int,
    dry_run: bool,
) -> None:
    """Submits a job, or an array of jobs if there are several tasks, and prints how to follow it.

    Args:
        tasks: the work of every node of a job.
        section: the resources of the job.
        name: name of the job.
        folder: for the log and for the files of submitit. All nodes must see it.
        num_gpus: number of GPUs of each node.
        num_cores: number of CPU cores of each node, if the section has none.
        dry_run: print the script for sbatch, and neither write nor submit anything.
    Raises:
        LaunchError: SLURM is not there, or refuses the job.
    """
    is_array = len(tasks) > 1
    log = str(folder.absolute() / ("%A_%a.log" if is_array else "%j.log"))
    executor = Executor(folder, max_num_timeout=MAX_NUM_TIMEOUTS)
    executor.update_parameters(**_parameters(section, name, log, num_gpus, num_cores))
    if dry_run:
        if is_array:
            executor.parameters["map_count"] = len(tasks)
        print(executor._make_submission_file_text(executor._submitit_command_str, ""))
        print(f"# launching on each node: mmpt {shlex.join(tasks[0].argv)}")
    else:
        _print_job(_submit(executor, tasks), log, len(tasks))


def _parameters(
    section: SlurmConfig, name: str, log: str, num_gpus: int, num_cores: int
) -> dict[str, Any]:
    """Returns the parameters of submitit's executor."""
    num_cores = section.cpus_per_task or num_cores
    minutes = math.ceil(section.time / 60)
    srun = [f"--output={log}", "--open-mode=append"]
    # srun does not read the number of cores from sbatch.
    srun.append(f"--cpus-per-task={num_cores}")
    # A failure on one node ends all others.
    srun.append("--kill-on-bad-exit=1")
    others = {key: value for key, value in section.sbatch.items() if value is not False}
    same = ("nodes", "partition", "account", "qos", "constraint", "mem", "comment")
    return {key: getattr(section, key) for key in same} | {
        "job_name": name,
        "ntasks_per_node": 1,
        "cpus_per_task": num_cores,
        "gpus_per_node": num_gpus or None,
        "time": minutes,
        "signal_delay_s": section.signal,
        "setup": list(section.setup) or None,
        "stderr_to_stdout": True,
        "srun_args": srun,
        "additional_parameters": {"output": log, "requeue": True, **others},
        "wckey": None,
    }


def _submit(executor: Executor, tasks: Sequence[NodeTask]) -> str:
    """Submits tasks as one job, and returns its id."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise LaunchError(
            f"the program `{missing[0]}` of SLURM is not installed here. Run the command on a "
            "login node of the cluster, or use this machine with another --jobtype."
        )
    try:
        # submitit also prints the message of sbatch, which the error below contains.
        with redirect_stderr(StringIO()), executor.batch():
            jobs = [executor.submit(task) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as err:
        raise LaunchError(f"SLURM refuses the job: {err}") from err
    return jobs[0].job_id.partition("_")[0]


def _print_job(job_id: str, log: str, num_tasks: int) -> None:
    """Prints the id of a job, its log, and how to follow and cancel it."""
    path = log.replace("%A", job_id).replace("%j", job_id)
    array = f", an array of {num_tasks}" if num_tasks > 1 else ""
    print(f"submitted job {job_id}{array}")
    print(f"  log:    {path.replace('%a', '*')}")
    print(f"  follow: tail -F {shlex.quote(path).replace('%a', '0')}")
    print(f"  state:  squeue --jobs {job_id}")
    print(f"  cancel: scancel {job_id}", flush=True)


class _Overrides(Section):
    """The keys that the arguments of a command without a YAML may set."""

    slurm: SlurmConfig = SlurmConfig()


def section_of(overrides: Sequence[str]) -> SlurmConfig:
    """Returns the section `slurm` that arguments such as `slurm.mem=64G` describe.

    Raises:
        ConfigError: with every mistake found.
    """
    values, problems = parse_overrides(overrides)
    good, mistakes = validate(_Overrides, values)
    if problems + mistakes:
        raise ConfigError("arguments", problems + mistakes)
    return SlurmConfig(**good.get("slurm", {}))
