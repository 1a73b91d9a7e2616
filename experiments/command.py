"""The command line of all experiments."""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from experiments.arms import Experiment, Run, override_args
from experiments.corpora import CORPORA
from experiments.results import RESULTS, Row, code_version, read_results
from experiments.runner import FOLDER, Commands, Step, make_steps, run_steps
from mmpt.config import load_config
from mmpt.errors import LaunchError
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.utils.command import run_command
from mmpt.utils.log import format_seconds

SECONDS_PER_EPOCH = 14.0
"""Seconds to train an epoch of 400 videos with the plain loss, in one process with one thread,
while a second run uses the other core. Measured on the runs of seed 4 of control youcook2 in
results.jsonl."""
SEQUENCE_SHARE = 0.03
"""Additional time of the video-paragraph contrast, as a share of the time with the plain loss, per
video of a batch. The time grows with the batch because all its clips are compared with each other.
"""
FIXED_SECONDS = 130.0
"""Seconds of a run for imports and for scoring the 256 validation videos of a corpus. Measured on
the runs of A of control howto100m on an AMD EPYC."""
STOPPED = "run the same command again to continue"


def estimated_seconds(run: Run) -> float:
    """Returns about how long training and scoring of a run take on the machine of the docs."""
    num_videos = run.corpus.option("num_videos")
    epochs = _epochs(run.arm.yaml, *override_args(run.arm.settings))
    return (
        FIXED_SECONDS
        + SECONDS_PER_EPOCH * epochs * num_videos / CorpusSettings.num_videos
    )


@cache
def _epochs(yaml: str, *overrides: str) -> float:
    """Returns the length of a training run in epochs of the plain loss.

    Raises:
        ConfigError: an override is wrong, so that no run begins before all are checked.
    """
    config = load_config(yaml, overrides, import_fairseq=False)
    epochs = float(config.option("optimization", "max_epoch"))
    if getattr(config.loss, "sequence_contrast", None) is not None:
        epochs *= 1 + SEQUENCE_SHARE * (config.dataset.num_video_per_batch or 1)
    return epochs


def runs_of(
    experiment: Experiment,
    seeds: Sequence[int] | None,
    corpora: Sequence[str] | None,
    *,
    all_arms: bool = False,
) -> list[Run]:
    """Returns the runs of an experiment, seed by seed.

    Args:
        seeds: default: as many as the experiment asks for, from 0 on.
        corpora: names of corpora. Default: the experiment's.
        all_arms: include the arms that the first pass leaves out.
    """
    chosen = [CORPORA[name] for name in corpora] if corpora else experiment.corpora
    runs = []
    for seed in range(experiment.num_seeds) if seeds is None else seeds:
        for corpus in chosen:
            arms = experiment.arms if all_arms else experiment.first_arms
            runs += [Run.of(arm, corpus, seed) for arm in arms(corpus)]
    return runs


def parse(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of the command line.

    Args:
        description: the help text.
        argv: the arguments. None uses the arguments of the process.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="default: see --plan")
    parser.add_argument(
        "--corpora", nargs="+", choices=sorted(CORPORA), help="default: see --plan"
    )
    parser.add_argument(
        "--jobs", type=int, default=2, help="number of runs at the same time (2)"
    )
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only these arms")
    parser.add_argument(
        "--all",
        action="store_true",
        help="also the arms that the first pass leaves out",
    )
    parser.add_argument(
        "--plan", action="store_true", help="list the runs and their time"
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"folder of the runs ({FOLDER})"
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="file to append to"
    )
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs must be at least 1, but is {args.jobs}")
    if args.seeds and min(args.seeds) < 0:
        parser.error(f"--seeds must be at least 0, but are {args.seeds}")
    return args


def main(
    experiments: Sequence[Experiment],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> int:
    """Runs experiments and returns the exit code: 1 if a run failed.

    Args:
        experiments: the experiments, the most important one first.
        description: the help text of the command.
        argv: the arguments. None uses the arguments of the process.
    """
    args = parse(description, argv)

    def work() -> int:
        wanted = []
        for experiment in experiments:
            all_arms = args.all or bool(args.arms)
            runs = runs_of(experiment, args.seeds, args.corpora, all_arms=all_arms)
            for run in runs:
                if not args.arms or run.arm.name in args.arms:
                    wanted.append((experiment.name, run))
        found = {run.arm.name for _, run in wanted}
        if unknown := sorted(set(args.arms or ()) - found):
            raise LaunchError(
                f"--arms must be names of arms, but {', '.join(map(repr, unknown))} is none. "
                "--plan --all lists all runs."
            )
        steps = make_steps(wanted, estimated_seconds, args.folder, args.results)
        print_plan(experiments, wanted, steps, args.jobs)
        print_changed(read_results(args.results), [run for _, run in wanted])
        if args.plan:
            print(*(f"  {step.label}" for step in steps if not step.is_done), sep="\n")
            return 0
        failures = run_steps(steps, args.jobs, Commands(), report)
        for failure in failures:
            print(f"error: {failure}", file=sys.stderr)
        return 1 if failures else 0

    # For every arm, the loader would log the keys that have no effect.
    with only_warnings("mmpt.config.loader"):
        return run_command(work, interrupt_message=STOPPED)


@contextmanager
def only_warnings(name: str) -> Iterator[None]:
    """Keeps a logger, and the loggers below it, from logging anything but warnings and errors."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def print_plan(
    experiments: Sequence[Experiment],
    wanted: Sequence[tuple[str, Run]],
    steps: Sequence[Step],
    num_jobs: int,
) -> None:
    """Prints the number of runs and the estimated time, by experiment and in total."""
    left = {step.key: step.estimate_s for step in steps if not step.is_done}
    for experiment in experiments:
        runs = {run.key: run for name, run in wanted if name == experiment.name}
        # A run that several experiments share counts for the first one only.
        seconds = sum(left.pop(key, 0.0) for key in runs)
        print(
            f"{experiment.name}: {len(runs)} runs, {format_seconds(seconds / num_jobs)} left. "
            f"{experiment.question}"
        )
    seconds = sum(step.estimate_s for step in steps if not step.is_done)
    print(
        f"in total: {len(steps)} steps, {format_seconds(seconds / num_jobs)}",
        flush=True,
    )


def print_changed(results: Mapping[str, Row], wanted: Sequence[Run]) -> None:
    """Prints how many results were made by another version of the code."""
    now = code_version()
    rows = [results[run.key] for run in wanted if run.key in results]
    changed = sum(row["code"] != now for row in rows)
    if changed:
        print(
            f"{changed} results were made by another version of the code. They count as finished; "
            "to repeat them, give other paths for --results and --folder."
        )


def report(line: str) -> None:
    """Prints a line of the progress."""
    print(line, flush=True)
