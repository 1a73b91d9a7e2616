"""Runs the commands of experiments: makes corpora, trains and scores.

Each run has a folder of its own. A corpus and a VideoCLIP run are shared by all runs that need
them. A step (a corpus, or a run) that is finished has a file `done.json`, and is not repeated. A
step that was interrupted continues: `mmpt train` continues from its last checkpoint.

Several steps run next to each other, each in one process with one thread. On two cores, two of them
are faster than one run with two processes.
"""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.arms import ROOT, START, Run, override_args
from experiments.measures import (
    CHECKPOINT,
    read_measures,
    remove_large_files,
    scoring_command,
)
from experiments.results import (
    RESULTS,
    append_result,
    code_version,
    make_row,
    read_results,
)
from mmpt.errors import DataError, LaunchError
from mmpt.utils.io import file_hash, read_json, write_json
from mmpt.utils.log import format_seconds

FOLDER = Path("runs/experiments")
DONE = "done.json"
"""File of a finished step, which is written last."""
GRACE_S = 40.0
"""Seconds that a command has to end after an interrupt. `mmpt train` takes at most 30."""
PRIOR_S = 150.0
"""The estimate of the time left starts as if a step of so many seconds had taken exactly its
estimated time. The first steps then do not change the estimate much."""
Command = list[str]


@dataclass
class Step:
    """A corpus to make, or a run to train and score."""

    key: str
    label: str
    folder: Path
    commands: Callable[[], Sequence[Command]]
    """Returns the arguments of Python for each command. Called when the step begins."""
    finish: Callable[[list[str], float], Any] = lambda commands, seconds: None
    """Called after the last command, with the commands as text and the seconds of all of them. It
    may be called more than once."""
    needs: list[str] = field(default_factory=list)
    """Keys of the steps that must be finished before this one begins."""
    estimate_s: float = 0.0
    outputs: list[Path] = field(default_factory=list)
    """Files that other steps read."""

    @property
    def is_done(self) -> bool:
        """Whether an earlier call has finished the step, and its outputs still exist."""
        return all(path.exists() for path in (self.folder / DONE, *self.outputs))


def corpus_folder(run: Run, base: Path = FOLDER) -> Path:
    """Returns the folder of a run's corpus."""
    return base / "data" / f"{run.corpus.name}-{_corpus_key(run)}"


def run_folder(run: Run, base: Path = FOLDER) -> Path:
    """Returns the folder of a run."""
    stage = "videoclip" if run.start is None else "norton"
    return base / run.corpus.name / f"seed{run.seed}" / f"{stage}-{run.key}"


def data_places(data: Path) -> dict[str, str]:
    """Returns the overrides that make a YAML read the corpus in the folder `data`."""
    return {
        "dataset.bert_name": f"{data}/bert",
        "dataset.train_path": f"{data}/how2_s3d_train.lst",
        "dataset.val_path": f"{data}/how2_s3d_val.lst",
        "dataset.vfeat_dir": f"{data}/feat",
        "dataset.tfeat_dir": f"{data}/feat/demo.bert-demo.",
    }


def training_command(run: Run, base: Path = FOLDER) -> Command:
    """Returns the arguments of Python that train a run."""
    folder = run_folder(run, base)
    places = {
        **data_places(corpus_folder(run, base)),
        "fairseq.checkpoint.save_dir": str(folder),
        "eval.save_path": str(folder),
        "fairseq.common.seed": run.seed + 1,
    }
    if run.start is not None:
        places["fairseq.checkpoint.restore_file"] = str(
            run_folder(run.start, base) / CHECKPOINT
        )
    overrides = override_args({**places, **run.arm.settings})
    return [
        "-m",
        "mmpt",
        "train",
        run.arm.yaml,
        "--jobtype",
        "local_single",
        *overrides,
    ]


def make_steps(
    runs: Sequence[tuple[str, Run]],
    estimate: Callable[[Run], float],
    base: Path = FOLDER,
    results: Path = RESULTS,
) -> list[Step]:
    """Returns the steps of the runs that have no result yet, each after the steps that it needs.

    Args:
        runs: experiment and run. Equal runs of several experiments are made once.
        estimate: returns the seconds that a run takes.
    """
    finished = read_results(results)
    steps: dict[str, Step] = {}

    def add(experiment: str, run: Run) -> None:
        if run.key in steps:
            return
        corpus_key = _corpus_key(run)
        if corpus_key not in steps:
            steps[corpus_key] = _corpus_step(run, base)
        needs = [corpus_key]
        if run.start is not None:
            add(experiment, run.start)
            needs.append(run.start.key)
        step = _run_step(run, experiment, base, results)
        step.needs, step.estimate_s = needs, estimate(run)
        steps[run.key] = step

    for experiment, run in runs:
        if run.key not in finished:
            add(experiment, run)
    return list(steps.values())


def _corpus_key(run: Run) -> str:
    """Returns the key of a run's corpus, including the seed."""
    return f"{run.corpus.key}-seed{run.seed}"


def _corpus_step(run: Run, base: Path) -> Step:
    folder = corpus_folder(run, base)
    return Step(
        key=_corpus_key(run),
        label=f"corpus {run.corpus.name}, seed {run.seed}",
        folder=folder,
        commands=lambda: [run.corpus.command(folder, run.seed)],
        estimate_s=10.0,
    )


def _run_step(run: Run, experiment: str, base: Path, results: Path) -> Step:
    folder = run_folder(run, base)
    is_start = run.key == Run(START, run.corpus, run.seed).key

    def commands() -> list[Command]:
        return [
            training_command(run, base),
            scoring_command(folder, corpus_folder(run, base)),
        ]

    def finish(texts: list[str], seconds: float) -> None:
        saved = folder / "measures.json"
        if saved.exists():
            measures = read_json(saved)
        else:
            measures = read_measures(folder, with_curves=run.arm.with_curves)
            if run.start is not None:
                checkpoint = run_folder(run.start, base) / CHECKPOINT
                measures["start"] = file_hash(checkpoint)
            write_json(saved, measures)
        if run.key not in read_results(results):
            append_result(make_row(run, experiment, texts, seconds, measures), results)
        remove_large_files(folder, keep_checkpoint=is_start)

    outputs = [folder / CHECKPOINT] if is_start else []
    return Step(run.key, run.label, folder, commands, finish, outputs=outputs)


class Commands:
    """Runs commands, each in a process group of its own, and can stop all of them.

    Ctrl-C in a terminal does not reach these process groups. So the commands are stopped only once,
    by `stop`.
    """

    def __init__(self, num_threads: int = 1):
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(num_threads)}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, command: Command, log: Path) -> None:
        """Runs Python with some arguments, and appends its output to a log.

        Raises:
            LaunchError: the command failed or was stopped.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            with self._lock:
                if self._stopped:
                    raise LaunchError("stopped")
                process = subprocess.Popen(
                    [sys.executable, *command],
                    cwd=ROOT,
                    env=self._environment,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if code:
            last_lines = log.read_text(errors="replace").splitlines()[-5:]
            raise LaunchError("\n".join([f"exit code {code}; see {log}:", *last_lines]))

    def stop(self) -> None:
        """Asks all commands to end, and kills those that do not."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.send_signal(signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        for process in running:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def do_step(step: Step, run_command: Commands) -> float:
    """Runs the commands of a step and returns how many seconds they took, or 0 if it was finished.

    The result of a finished run is recorded again if the results file does not have it.
    """
    marker = step.folder / DONE
    if step.is_done:
        done = read_json(marker)
        step.finish(done["commands"], done["seconds"])
        return 0.0
    begin = time.monotonic()
    commands = step.commands()
    for command in commands:
        run_command(command, step.folder / "log.txt")
    seconds = time.monotonic() - begin
    texts = [shlex.join(["python", *command]) for command in commands]
    step.finish(texts, seconds)
    done = {
        "key": step.key,
        "commands": texts,
        "code": code_version(),
        "seconds": seconds,
    }
    write_json(marker, done)
    return seconds


def run_steps(
    steps: Sequence[Step],
    num_jobs: int,
    run_command: Commands,
    report: Callable[[str], None],
) -> list[str]:
    """Runs all steps, and returns a message for each that failed.

    After an interrupt, all commands are asked to end.

    A step begins as soon as a job is free and the steps that it needs are finished. Steps that need
    a failed one are left out.

    Args:
        num_jobs: steps that run next to each other.
        report: called with a line after each step.
    """
    queue = Queue(steps)
    progress = Progress(steps, num_jobs)
    failures: list[str] = []
    running: dict[Future[float], Step] = {}
    with ThreadPoolExecutor(num_jobs) as pool:
        try:
            while True:
                while len(running) < num_jobs and (step := queue.take()):
                    running[pool.submit(do_step, step, run_command)] = step
                if not running:  # all other steps need one that failed
                    break
                # With a timeout, because a wait without one cannot be interrupted everywhere.
                ended, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in ended:
                    step = running.pop(future)
                    try:
                        seconds = future.result()
                    except (LaunchError, DataError, OSError) as err:
                        failures.append(f"{step.label}: {err}")
                        report(f"failed: {failures[-1]}")
                    else:
                        queue.finished.add(step.key)
                        report(progress.line(step, seconds))
        except BaseException:
            run_command.stop()  # leaving the pool waits for the threads
            raise
    return failures + [f"{step.label}: not run" for step in queue.waiting]


class Queue:
    """The steps that have not begun."""

    def __init__(self, steps: Sequence[Step]):
        self.waiting = list(steps)
        self.finished: set[str] = set()

    def take(self) -> Step | None:
        """Removes and returns the first step whose needs are finished; None if there is none."""
        for step in self.waiting:
            if self.finished.issuperset(step.needs):
                self.waiting.remove(step)
                return step
        return None


class Progress:
    """Estimates the time left from the estimates of the steps and the time that they took."""

    def __init__(self, steps: Sequence[Step], num_jobs: int):
        self._num_steps = len(steps)
        self._num_jobs = num_jobs
        self._num_done = 0
        self._left_s = sum(step.estimate_s for step in steps if not step.is_done)
        self._estimated_s = self._taken_s = PRIOR_S

    def line(self, step: Step, seconds: float) -> str:
        """Returns the line for a step that has ended after some seconds."""
        self._num_done += 1
        if seconds:
            self._left_s -= step.estimate_s
            self._estimated_s += step.estimate_s
            self._taken_s += seconds
        pace = self._taken_s / self._estimated_s
        left_s = max(0.0, self._left_s) * pace / self._num_jobs
        count = f"{self._num_done} of {self._num_steps}"
        took = f"took {format_seconds(seconds)}" if seconds else "was finished"
        return f"{count}: {step.label} {took}; about {format_seconds(left_s)} left"
