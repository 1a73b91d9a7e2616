"""Wall-clock time of a whole command, by phase: one epoch of training, or an evaluation.

    python benchmarks/whole_job.py    # small size, training only; half an hour on 2 cores
    python benchmarks/whole_job.py --jobtype local_single --refresh on --beside-busy
    python benchmarks/whole_job.py --size base --jobtype local_single --refresh on
    python benchmarks/whole_job.py --jobtype local_predict

Each job is `python locallaunch.py YAML --jobtype ...` in an empty folder, on a corpus of `mmpt
make-demo-data` (seed 0, kept in --work). The plain side is the same job with padded towers, eager
attention and the dense loss. A phase ends when the command prints a certain line, so that nothing
is measured inside the job. The jobs take turns. A first job, which is not counted, fills the file
cache.

Small: BERT with hidden size 128 and 4 + 2 layers. All weights are trained, in 45 updates of 8
videos x 16 clips.
Base: BERT-base with 12 + 6 layers. The LayerNorm parameters are trained as in Norton's recipe, in 6
updates of 16 videos x 16 clips.
"""

import contextlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from job_commands import JOB_TYPES, PREDICT, SIZES, Data, Job, Lines
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.datasets import collate
from mmpt.errors import LaunchError
from mmpt.evaluators import PREDICTORS
from mmpt.prepare.demo_corpus.corpus import make_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.tasks import Task
from mmpt.utils.command import end_with_parent
from mmpt.utils.tables import text_table
from process_memory import run_in_new_process
from results import ROOT, Figure, Options, record, run_script, significant

Seconds = dict[str, float]
"""Phase -> seconds."""
# Sums of phases that are reported, too.
START = ("checks", "imports", "data and model", "refresh", "first update")
EPOCH = ("first update", "other updates", "validation", "checkpoint")
TRAINING_SUMS = {
    "launch to first update": START,
    "updates, validation, checkpoint": EPOCH,
}
WHOLE = "whole command"


def measure(lines: Lines, phases: Mapping[str, str]) -> Seconds:
    """Returns the seconds of each phase, and of the whole command.

    Args:
        lines: the lines that the command printed.
        phases: phase -> pattern of the line that ends it, in order.
    Raises:
        LaunchError: the line that ends a phase is missing.
    """
    ends = [0.0]
    for phase, pattern in phases.items():
        end_s = find_end(lines, pattern)
        if end_s is None:
            raise LaunchError(
                f"the command printed no line `{pattern}`, which ends `{phase}`."
            )
        # The seconds in a line are rounded. Without `max`, a phase could end before it begins.
        ends.append(max(ends[-1], end_s))
    seconds = {}
    for phase, (begin, end) in zip(phases, pairwise(ends), strict=True):
        seconds[phase] = end - begin
    seconds[WHOLE] = ends[-1]
    return seconds


def find_end(lines: Lines, pattern: str) -> float | None:
    """Returns the time of the first line that matches `pattern`, less the seconds in its group."""
    for at_s, line in lines:
        match = re.search(pattern, line)
        if match is None:
            continue
        if match.re.groups and match[1]:
            return at_s - float(match[1])
        return at_s
    return None


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Runs another process that keeps a core busy."""
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=partial(end_with_parent, "SIGKILL"),
    ) as other:
        try:
            yield
        finally:
            other.kill()


def save_random_weights(job: Job) -> None:
    """Writes the checkpoint that an evaluation scores."""
    with contextlib.chdir(ROOT):  # the YAML includes one by its relative path
        task = Task.from_config(load_config(job.write_yaml()))
    torch.manual_seed(0)
    weights = task.build_model(pretrained=False).state_dict()
    torch.save({"model": weights}, job.data.checkpoint)


def network_s(path: Path) -> float:
    """Returns the seconds that the network of an evaluation takes if all batches are in memory."""
    with contextlib.chdir(ROOT):
        config = load_config(path)
    task = Task.from_config(config)
    dataset = task.build_dataset(Split.TEST)
    model = task.build_model(pretrained=False)
    assert dataset is not None
    batches = list(DataLoader(dataset, config.batch_size, collate_fn=collate))
    predictor_class = PREDICTORS.get(str(config.predictor), "predictor")
    predictor = predictor_class(config.dataset)
    device = torch.device("cpu")
    predictor(model, batches[:1], device)  # warms up
    begin = time.perf_counter()
    predictor(model, batches, device)
    return time.perf_counter() - begin


def figures_of(
    job: Job, ours: Sequence[Seconds], plain: Sequence[Seconds]
) -> list[Figure]:
    """Returns a figure for each phase of a job, for sums of phases, and for the whole command."""
    parts: dict[str, Sequence[str]] = {name: (name,) for name in (*job.phases, WHOLE)}
    if job.job_type != PREDICT:
        parts |= TRAINING_SUMS

    def total(seconds: Seconds, names: Sequence[str]) -> float:
        return sum(seconds.get(name, 0.0) for name in names)

    figures = []
    for what, names in parts.items():
        our_totals = [total(seconds, names) for seconds in ours]
        plain_totals = [total(seconds, names) for seconds in plain]
        figures.append(Figure(f"{job.name}: {what}", "s", our_totals, plain_totals))
    return figures


def summary(job: Job, figures: Sequence[Figure]) -> str:
    """Returns a table with the medians of the figures of a job."""
    medians = {}
    for figure in figures:
        what = figure.what.removeprefix(f"{job.name}: ")
        medians[what] = statistics.median(figure.ours)
    rows = []
    for figure, (what, median) in zip(figures, medians.items(), strict=True):
        percent = 100 * median / medians[WHOLE]
        plain = ratio = ""
        if figure.plain:
            plain = f"{statistics.median(figure.plain):.2f}"
        if figure.ratios:
            ratio = significant(statistics.median(figure.ratios))
        rows.append([what, f"{median:.2f}", f"{percent:.0f} %", plain, ratio])
    return text_table([job.name, "ours, s", "share", "plain, s", "times"], rows)


def prepare(size: str, args: Any) -> Data:
    """Writes the corpus and the BERT of a size."""
    num_videos = args.videos or SIZES[size].num_videos
    num_val = args.val_videos or SIZES[size].num_val
    all_val = num_val
    if PREDICT in args.jobtype:
        all_val = max(num_val, args.test_videos)
    work = args.work.resolve()
    corpus = work / f"corpus-{num_videos}-{all_val}"
    make_corpus(corpus, CorpusSettings(num_videos=num_videos, num_val=all_val))
    data = Data(work, corpus, size, num_videos, num_val)
    data.write_bert()
    return data


def jobs_of(data: Data, args: Any) -> list[Job]:
    """Returns the jobs of a size, for our side."""
    jobs = []
    for job_type, refresh in product(args.jobtype, args.refresh):
        if job_type != PREDICT:
            jobs.append(Job(data, job_type, refresh == "on"))
    if PREDICT in args.jobtype:
        jobs.append(Job(data, PREDICT, refresh=False))
        save_random_weights(jobs[-1])
    return jobs


def compare(jobs: Sequence[Job], args: Any) -> list[list[Figure]]:
    """Runs both sides of the jobs in turns; returns the figures of each job."""
    sides = [False] if args.no_baseline else [False, True]
    taken: dict[Job, list[Seconds]] = {}
    # The first run fills the file cache. It is as short as possible.
    first = jobs[0]
    if first.job_type == PREDICT:
        first.run()
    else:
        first.run("fairseq.optimization.max_update=1")
    for number, job, plain in product(range(args.rounds), jobs, sides):
        one = replace(job, plain=plain)
        neighbour = busy_core() if args.beside_busy else contextlib.nullcontext()
        with neighbour:
            seconds = measure(one.run(), one.phases)
        taken.setdefault(one, []).append(seconds)
        side = "plain" if plain else "ours"
        print(
            f"round {number + 1}, {one.name}, {side}: {seconds[WHOLE]:.1f} s",
            flush=True,
        )
    figures = []
    for job in jobs:
        plain_job = replace(job, plain=True)
        job_figures = figures_of(job, taken[job], taken.get(plain_job, []))
        if job.job_type == PREDICT:
            yaml = job.write_yaml()
            rounds = [run_in_new_process(network_s, yaml) for _ in range(args.rounds)]
            job_figures.append(Figure(f"{job.name}: network alone", "s", rounds))
        figures.append(job_figures)
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    work = Path(tempfile.gettempdir()) / "mmpt-whole-job"
    parser.add_argument("--size", choices=sorted(SIZES), nargs="+", default=["small"])
    parser.add_argument(
        "--jobtype", choices=JOB_TYPES, nargs="+", default=JOB_TYPES[:2]
    )
    parser.add_argument(
        "--refresh", choices=["on", "off"], nargs="+", default=["on", "off"]
    )
    parser.add_argument(
        "--no-baseline", action="store_true", help="measure our side alone"
    )
    parser.add_argument(
        "--beside-busy",
        action="store_true",
        help="keep a core busy with another process",
    )
    parser.number("--rounds", 3)
    parser.number("--videos", None, "training videos (small: 360, base: 96)")
    parser.number("--val-videos", None, "videos to validate on (small: 40, base: 16)")
    parser.number("--test-videos", 256, "videos to score on")
    parser.add_argument(
        "--work", type=Path, default=work, help="folder of the corpora, which are kept"
    )
    args = parser.parse_args()
    all_figures = []
    summaries = []
    for size in args.size:
        jobs = jobs_of(prepare(size, args), args)
        for job, figures in zip(jobs, compare(jobs, args), strict=True):
            all_figures += figures
            summaries.append(summary(job, figures))
    record(all_figures, args.out)
    for text in summaries:
        print(f"\n{text}")


if __name__ == "__main__":
    run_script(main)
