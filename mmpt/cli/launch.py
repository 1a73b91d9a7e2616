"""`mmpt train`: makes, prints and runs the command line of a YAML and a job type."""

import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

from typer import Argument, Option

from mmpt.cli import jobs, preflight
from mmpt.cli.app import Command, Overrides
from mmpt.cli.processes import run_all
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
        str, Argument(metavar="YAML[,YAML..]", help="Files to run one after another.")
    ],
    overrides: Overrides = None,
    *,
    jobtype: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help=f"One of {', '.join(jobs.JOB_TYPES)}. Default: the YAML's `task_type`.",
        ),
    ] = None,
    dryrun: Annotated[
        bool, Option("--dryrun", help="Print the command; check no data, write and run nothing.")
    ] = False,
) -> int:
    """Train or evaluate what YAML files describe.

    Evaluations also take the options of `mmpt predict`, such as --allow-missing; those with a value
    as --device=cpu.
    """
    words = [yamls, *(overrides or ())]  # unknown options are among them, wherever they stood
    options = [word for word in words if word.startswith("-")]
    paths, *settings = [word for word in words if not word.startswith("-")] or [""]
    # All are checked before the first one runs. Evaluations that follow one another share a start
    # and a table.
    together: list[list[RunConfig]] = []
    for path in paths.split(","):
        if not path.endswith((".yaml", ".yml")):
            raise LaunchError(f"{path or 'an empty name'}: only .yaml files can be launched.")
        config = load_config(path, settings)
        jobs.choose_job_type(jobtype, config)
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
                command = [*_predict(configs, bool(settings), dryrun), *options]
            else:
                command = _train(configs[0], jobtype, bool(settings), dryrun, held)
            print(f"launching {shlex.join(command)}", flush=True)
            if not dryrun and (code := _run(command)):
                return code
    return 0


main = Command(
    train,
    stopped="run the same command again to continue",
    context_settings={"ignore_unknown_options": True},  # they are for `mmpt predict`
)


def _run(command: Sequence[str]) -> int:
    env = {"PYTHONWARNINGS": os.environ.get("PYTHONWARNINGS", FAIRSEQ_WARNINGS)}
    if "--cpu" in command:
        env["CUDA_VISIBLE_DEVICES"] = ""  # fairseq touches every GPU that it sees
    return run_all([command], [env], grace_s=GRACE_S)


def _train(
    config: RunConfig, asked: str | None, overridden: bool, dry_run: bool, held: ExitStack
) -> list[str]:
    """Checks a training job, writes its `config.yaml` and returns its command.

    A dry run checks no data and writes nothing. `held` keeps other jobs from the folder.
    """
    save_dir = config.save_dir
    last = preflight.last_checkpoint(config)
    config = with_run_dir(config)
    saved = os.path.join(save_dir, "config.yaml")
    yaml = saved if overridden else config.path
    job_type = jobs.choose_job_type(asked, config)
    command = jobs.training_command(config, yaml, job_type, count_gpus(), resume=bool(last))
    if not dry_run:
        jobs.require_fairseq()
        preflight.check_data(config)
        preflight.check_start(config)
        preflight.check_parts(config)
        lock = os.path.join(save_dir, LOCK_NAME)
        try:
            with writing(lock):
                held.enter_context(exclusive(lock, "training", wait=False))
        except HeldError:  # they would write over each other's checkpoints and vectors
            raise LaunchError(
                f"{save_dir}: another job is training in this folder; wait for its end, or choose "
                "another `fairseq.checkpoint.save_dir`."
            ) from None
        save_resolved(config, saved)
    if last:
        logger.info(
            "continuing from %s; choose another fairseq.checkpoint.save_dir to start anew", last
        )
    return command


def _predict(configs: Sequence[RunConfig], overridden: bool, dry_run: bool) -> list[str]:
    """Checks evaluations and returns their command. With overrides it runs saved copies."""
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
    return jobs.predict_command(paths)


def count_gpus() -> int:
    """Returns the number of GPUs that PyTorch can use here."""
    import torch  # deferred: seconds, and neither predict jobs nor mistakes in a YAML need it

    return torch.cuda.device_count()
