"""`mmpt train`: makes, prints and runs the command line of a YAML and a job type."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Annotated, NamedTuple

import typer

from mmpt.cli import jobs, preflight
from mmpt.cli.app import Command, Overrides
from mmpt.cli.processes import HIDE_GPUS, run_all
from mmpt.config import RunConfig, load_config
from mmpt.config.loader import save_resolved, with_run_dir
from mmpt.errors import LaunchError
from mmpt.utils.io import writing
from mmpt.utils.lock import HeldError, exclusive
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

FAIRSEQ_WARNINGS = "ignore::UserWarning,ignore::FutureWarning"
"""What fairseq's use of hydra and torch makes Python say at every start; PYTHONWARNINGS, if set,
wins.
"""

LOCK_NAME = ".lock"
"""File of a `save_dir` whose lock the launcher holds as long as it trains there."""

GRACE_S = 30.0
"""Seconds to end a job in; more than `mmpt.cli.processes` gives its own processes."""


def train(
    yamls: Annotated[
        str, typer.Argument(metavar="YAML[,YAML..]", help="Files to run one after another.")
    ],
    overrides: Overrides = None,
    *,
    jobtype: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help=f"One of {', '.join(jobs.JOB_TYPES)}. Default: the YAML's `task_type`.",
        ),
    ] = None,
    dryrun: Annotated[
        bool,
        typer.Option("--dryrun", help="Print the command; check no data, write and run nothing."),
    ] = False,
) -> int:
    """Train or evaluate what YAML files describe.

    Evaluations also take the options of `mmpt predict`, such as --allow-missing; those with a value
    as --device=cpu.
    """
    words = [yamls, *(overrides or ())]  # unknown options are among them, wherever they stood
    options = [word for word in words if word.startswith("-")]
    paths, *settings = [word for word in words if not word.startswith("-")] or [""]
    runs = [read_launchable(path, jobtype, settings) for path in paths.split(",")]
    if options and any(each.job_type != jobs.PREDICT for each in runs):
        raise LaunchError(
            f"unknown options: {' '.join(options)}; only evaluations take those of `mmpt predict`."
        )
    for together in in_one_process(runs):  # all have been checked before the first one runs
        code = launch(together, options, overridden=bool(settings), dry_run=dryrun)
        if code:
            return code
    return 0


main = Command(
    train,
    stopped="run the same command again to continue",
    context_settings={"ignore_unknown_options": True},  # they are for `mmpt predict`
)


class Launchable(NamedTuple):
    """A run and its job type."""

    config: RunConfig
    job_type: str


def read_launchable(path: str, job_type: str | None, overrides: Sequence[str]) -> Launchable:
    """Reads one YAML; UserError when it cannot be launched on any machine."""
    if not path.endswith((".yaml", ".yml")):
        raise LaunchError(f"{path or 'an empty name'}: only .yaml files can be launched.")
    config = load_config(path, overrides)
    return Launchable(config, jobs.choose_job_type(job_type, config))


def in_one_process(yamls: Sequence[Launchable]) -> Iterator[list[Launchable]]:
    """Yield evaluations that follow one another together, so that they share a start and a table;
    others alone.
    """
    for job_type, together in groupby(yamls, key=lambda yaml: yaml.job_type):
        if job_type == jobs.PREDICT:
            yield list(together)
        else:
            yield from ([yaml] for yaml in together)


def launch(
    yamls: Sequence[Launchable], options: Sequence[str] = (), *, overridden: bool, dry_run: bool
) -> int:
    """Runs several evaluations or one training, and returns the exit code."""
    yaml = yamls[0]
    with ExitStack() as held:
        if yaml.job_type == jobs.PREDICT:
            command = [*_predict([each.config for each in yamls], overridden, dry_run), *options]
        else:
            command = _train(yaml.config, yaml.job_type, overridden, dry_run, held)
        print(f"launching {shlex.join(command)}", flush=True)
        env = {"PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", FAIRSEQ_WARNINGS)}
        if "--cpu" in command:
            env |= HIDE_GPUS
        return 0 if dry_run else run_all([command], [env], grace_s=GRACE_S)


def _train(
    config: RunConfig, job_type: str, overridden: bool, dry_run: bool, held: ExitStack
) -> list[str]:
    """Checks a training job, writes its `config.yaml` and returns its command.

    A dry run checks no data and writes nothing. `held` keeps other jobs from the folder.
    """
    num_gpus = count_gpus()
    half_precision = [name for name in jobs.HALF_PRECISION if config.option("common", name)]
    plan = jobs.plan_devices(
        job_type, 0 if config.option("common", "cpu") else num_gpus, half_precision
    )
    if plan.note:
        logger.info(plan.note)
    last = preflight.last_checkpoint(config)
    if not dry_run:
        preflight.check_data(config)
        if last is None:
            preflight.check_restore_file(config)
        else:
            preflight.check_start(last)
        preflight.check_parts(config)
        _keep_others_out(config.save_dir, held)
    if last is not None:
        logger.info(
            "continuing from %s; choose another fairseq.checkpoint.save_dir to start anew", last
        )
    config = with_run_dir(config)
    saved = os.path.join(config.save_dir, "config.yaml")
    if not dry_run:
        save_resolved(config, saved)
    yaml = saved if overridden else config.path
    command = jobs.training_command(config, yaml, plan, num_gpus, resume=last is not None)
    if not dry_run:
        jobs.require_fairseq(command)
    return command


def _predict(configs: Sequence[RunConfig], overridden: bool, dry_run: bool) -> list[str]:
    """Checks evaluations and returns their command. With overrides it runs saved copies."""
    paths = []
    for config in configs:
        if not dry_run:
            preflight.check_data(config)
        path = config.path
        if overridden:
            assert config.eval.save_path is not None, "checked by load_config"
            path = os.path.join(config.eval.save_path, config.copy_name)
            if not dry_run:
                save_resolved(config, path)
        paths.append(path)
    return jobs.predict_command(paths)


def _keep_others_out(save_dir: str, held: ExitStack) -> None:
    """Take the lock of `save_dir`: two trainings would write over each other's checkpoints and
    vectors.
    """
    path = os.path.join(save_dir, LOCK_NAME)
    try:
        with writing(path):
            held.enter_context(exclusive(path, "training", wait=False))
    except HeldError:
        raise LaunchError(
            f"{save_dir}: another job is training in this folder; wait for its end, or choose "
            "another `fairseq.checkpoint.save_dir`."
        ) from None


def count_gpus() -> int:
    """Return the number of GPUs that PyTorch can use here."""
    import torch  # deferred: seconds, and neither predict jobs nor mistakes in a YAML need it

    return torch.cuda.device_count()
