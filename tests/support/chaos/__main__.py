"""Interrupts tiny training runs, and compares them with uninterrupted runs.

    python -m tests.support.chaos CORPUS FOLDER [--write] [ROW=NUMBER ...]

Without arguments, the default number of trials of all rows is run. `kill=5 term=2` runs 5 and 2
trials of these rows, and `--each 1` runs one trial of all rows. The rows are in `rows.py`.

Each outcome is a line of FOLDER/COMMIT/outcomes.jsonl. If the command is run again, it continues
with the next trial.
Prints a table. The exit code is 1 if a run differs.
"""

import argparse
import json
import logging
import os
import random
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.results import commit
from tests.support.chaos import table
from tests.support.chaos.preemption import run_preemption
from tests.support.chaos.rows import ROWS, Row
from tests.support.chaos.training_factory import TrainingFactory
from tests.support.chaos.trial import Outcome, run_trial
from tests.support.paths import ROOT
from tests.support.slurm_cluster import missing_program, slurm_cluster
from tests.support.slurm_jobs import Cluster


class Chaos:
    """A series of trials in a folder.

    Args:
        factory: makes the training runs.
        seed: decides the moments of the interruptions.
    """

    def __init__(self, factory: TrainingFactory, seed: int):
        self._factory = factory
        self._seed = seed
        self._cluster: Cluster | None = None
        self._held = ExitStack()

    def run(self, row: Row, number: int) -> Outcome:
        """Runs a trial."""
        rng = random.Random(f"{self._seed} {row.name} {number}")
        # In `choose_moment`, the four phases take turns. The shift by number // 4 combines each of
        # up to four training runs with each phase.
        setting = row.settings[(number + number // 4) % len(row.settings)]
        if row.kind is not None:
            kind = row.kind
            return run_trial(self._factory, row.name, number, kind, setting, rng)
        self._cluster = self._cluster or self._start_cluster()
        factory, cluster = self._factory, self._cluster
        return run_preemption(cluster, factory, row.name, number, setting, rng)

    def _start_cluster(self) -> Cluster:
        folder = self._factory.folder / f"slurm-{os.getpid()}"
        folder.mkdir()
        return Cluster(self._held.enter_context(slurm_cluster(folder)))

    def close(self) -> None:
        """Ends the cluster."""
        self._held.close()


def planned(words: Sequence[str], each: int | None) -> list[tuple[Row, int]]:
    """Returns the rows and the numbers of trials that the arguments ask for."""
    rows = {row.name: row for row in ROWS}
    plan = []
    for word in words:
        name, _, number = word.partition("=")
        if name not in rows or not number.isdigit():
            sys.exit(f"{word}: expected ROW=NUMBER, with a row of {', '.join(rows)}.")
        plan.append((rows[name], int(number)))
    if plan:
        return plan
    if missing := missing_program():
        print(
            f"no preemptions: `{missing}` is not installed (apt-get install slurm-wlm)"
        )
        del rows["preemption"]
    return [(row, row.num_trials if each is None else each) for row in rows.values()]


def read_outcomes(path: Path) -> dict[tuple[str, int], Outcome]:
    """Returns the outcomes of a file by row and number. The last line may be incomplete."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            outcome = Outcome(**json.loads(line))
        except ValueError:
            continue
        found[outcome.row, outcome.number] = outcome
    return found


def describe(outcome: Outcome) -> str:
    """Returns a line about an outcome."""
    state = "identical"
    if outcome.different:
        state = "differs: " + "; ".join(outcome.different)
    if outcome.traceback:
        state += f", with a traceback: {outcome.traceback}"
    where = f" in {outcome.phase}" if outcome.phase else ""
    return (
        f"{outcome.row} {outcome.number}: {outcome.kind}{where} ({outcome.setting}), exit codes "
        f"{outcome.codes}, {outcome.lost_updates} updates lost, recovered in "
        f"{outcome.recovery_s:.1f} s: {state}"
    )


def run_all(chaos: Chaos, plan: Sequence[tuple[Row, int]], path: Path) -> list[Outcome]:
    """Runs the trials that are not in the file yet. Returns the outcomes of all."""
    done = read_outcomes(path)
    trials = [(row, number) for row, count in plan for number in range(count)]
    left = [(row, number) for row, number in trials if (row.name, number) not in done]
    begin = time.monotonic()
    for index, (row, number) in enumerate(left, 1):
        outcome = chaos.run(row, number)
        done[row.name, number] = outcome
        with open(path, "a") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")
        per_trial_s = (time.monotonic() - begin) / index
        minutes = per_trial_s * (len(left) - index) / 60
        count = f"{len(trials) - len(left) + index}/{len(trials)}"
        rate = f"{60 / per_trial_s:.1f} per minute, {minutes:.0f} minutes left"
        print(f"[{count}, {rate}] {describe(outcome)}", flush=True)
    return [done[row.name, number] for row, number in trials]


def command_line(options: argparse.Namespace) -> str:
    """Returns the command that runs the same trials."""
    words = list(options.rows)
    if options.each is not None:
        words += ["--each", str(options.each)]
    if not words:
        return "make chaos"
    return f'make chaos ARGS="{shlex.join(words)}"'


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="demo data; made if it is missing")
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", nargs="*", metavar="ROW=NUMBER")
    parser.add_argument("--each", type=int, help="number of trials of every row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--write", action="store_true", help="write the table to docs/reliability.md"
    )
    options = parser.parse_args()
    plan = planned(options.rows, options.each)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    folder = options.folder.resolve() / commit()
    chaos = Chaos(TrainingFactory(options.corpus.resolve(), folder), options.seed)
    try:
        outcomes = run_all(chaos, plan, folder / "outcomes.jsonl")
    finally:
        chaos.close()
    text = "\n".join(table.table(outcomes))
    command = command_line(options)
    text = f"{text}\n\n{table.source(command)}"
    print(text)
    if options.write:
        table.write(text)
    return int(any(one.different for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
