"""Wall-clock time of a whole command, by phase: one epoch of training, or an evaluation.

    python benchmarks/whole_job.py    # small size, both job types; half an hour on 2 cores
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
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import results
from mmpt.batch import Split
from mmpt.config import load_config
from mmpt.config.yaml_files import write_yaml
from mmpt.datasets import collate
from mmpt.errors import LaunchError
from mmpt.evaluators import PREDICTORS
from mmpt.prepare.demo_corpus.corpus import make_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.tasks import Task
from mmpt.utils.command import end_with_parent
from mmpt.utils.tables import text_table
from process_memory import run_in_new_process
from results import Figure, Options, record, run_script, significant

ROOT = Path(__file__).resolve().parents[1]
TRAINING = "projects/retri/norton/how2_demo.yaml"
SCORING = "projects/retri/norton/test_how2_demo_zs.yaml"
PREDICT = "local_predict"
JOB_TYPES = ("local_single", "local_small", PREDICT)
ENDED = "the command has ended"

Lines = list[tuple[float, str]]
"""The lines that a command printed, each with the seconds since the start of the command."""
Seconds = dict[str, float]
"""Phase -> seconds."""

TRAINING_PHASES = {
    "checks": r"^launching ",
    "imports": r"^\d{4}-\d\d-\d\d ",  # the launcher's own lines have no date
    "data and model": r"refresh of epoch 1: .* videos in ([\d.]+) s|Start iterating over samples",
    "refresh": r"refresh of epoch 1|Start iterating over samples",
    "first update": r"first update done",
    "other updates": r"begin validation on",
    "validation": r"Preparing to save checkpoint",
    "checkpoint": r"done training in",
    "exit": ENDED,
}
"""Phase -> pattern of the line that ends it. If the pattern has a group, it matches a number of
seconds, and the phase ended that long before the line.
"""
SCORING_PHASES = {
    "checks": r"^launching ",
    "imports, data, model": r" scored in ([\d.]+) s$",
    "network": r"test batches scored: \d+ in",
    "metrics": r" scored in [\d.]+ s$",
    "results, report, table": r"^ +chance ",
    "exit": ENDED,
}
# Sums of phases that are reported, too.
START = ("checks", "imports", "data and model", "refresh", "first update")
EPOCH = ("first update", "other updates", "validation", "checkpoint")
TRAINING_SUMS = {"launch to first update": START, "updates, validation, checkpoint": EPOCH}
WHOLE = "whole command"


@dataclass(frozen=True)
class Size:
    """A model and the batches that it is trained on."""

    bert: Mapping[str, int]
    """Changes to the configuration of the BERT in the corpus."""
    video_layers: int
    layernorm_only: bool
    videos_per_batch: int
    num_videos: int
    num_val: int


SIZES = {
    "small": Size({"num_hidden_layers": 4}, 2, False, 8, 360, 40),
    "base": Size(
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 30522,
        },
        6,
        True,
        16,
        96,
        16,
    ),
}


@dataclass(frozen=True)
class Data:
    """The input files of the jobs of one size."""

    work: Path
    """Folder of the files."""
    corpus: Path
    """Folder of the corpus."""
    size: str
    """Key of `SIZES`."""
    num_videos: int
    """Number of training videos."""
    num_val: int
    """Number of validation videos in training. The corpus may have more, for the evaluations."""

    @property
    def bert(self) -> Path:
        """Folder of the BERT of this size."""
        return self.work / f"bert-{self.size}"

    @property
    def checkpoint(self) -> Path:
        """Path of a checkpoint with random weights."""
        return self.work / f"random-{self.size}.pt"

    def list_of(self, split: str, num: int) -> Path:
        """Writes a list of the first `num` videos of a split; returns its path."""
        ids = (self.corpus / f"how2_s3d_{split}.lst").read_text().splitlines()
        path = self.work / f"{self.size}-{split}.lst"
        path.write_text("\n".join(ids[:num]) + "\n")
        return path

    def write_bert(self) -> None:
        """Writes the folder `bert`: the vocabulary of the corpus with another configuration."""
        shutil.copytree(self.corpus / "bert", self.bert, dirs_exist_ok=True)
        path = self.bert / "config.json"
        config = json.loads(path.read_text()) | dict(SIZES[self.size].bert)
        path.write_text(json.dumps(config))

    def settings(self) -> dict[str, Any]:
        """Returns the part of a YAML that is the same for training and evaluation."""
        dataset = {"bert_name": str(self.bert), "vfeat_dir": f"{self.corpus}/feat"}
        model = {"num_hidden_video_layers": SIZES[self.size].video_layers}
        return {"dataset": dataset, "model": model}


@dataclass(frozen=True)
class Job:
    """A command to measure."""

    data: Data
    job_type: str
    """Value of `--jobtype`."""
    refresh: bool
    """Embed all videos and retrieve the batches. If False, batches are random groups of videos."""
    plain: bool = False
    """Use padded towers, eager attention and the dense loss."""

    @property
    def name(self) -> str:
        """The name of the job, which is the same for both sides."""
        name = f"{self.data.size}, {self.job_type}"
        if self.job_type == PREDICT:
            return name
        return f"{name}, {'with' if self.refresh else 'without'} refresh"

    @property
    def phases(self) -> Mapping[str, str]:
        """The phases of the command and the patterns of the lines that end them."""
        phases = SCORING_PHASES if self.job_type == PREDICT else TRAINING_PHASES
        return {name: line for name, line in phases.items() if self.refresh or name != "refresh"}

    def write_yaml(self) -> Path:
        """Writes the YAML and empties the folder of the job; returns the path of the YAML."""
        folder = self.data.work / "run"
        shutil.rmtree(folder, ignore_errors=True)
        values = self.data.settings() | {"eval": {"save_path": str(folder)}}
        if self.job_type == PREDICT:
            self._evaluate(values)
        else:
            self._train(values, folder)
        if self.plain:
            values["model"]["model_cls"] = "benchmarks.plain_parts.PaddedTowers"
        path = self.data.work / "job.yaml"
        write_yaml(path, values)
        return path

    def _evaluate(self, values: dict[str, Any]) -> None:
        """Adds the settings of an evaluation."""
        values["includes"] = SCORING
        values["dataset"]["test_path"] = f"{self.data.corpus}/val_clips.json"
        path = {"path": [str(self.data.checkpoint)]}
        values["fairseq"] = {"common_eval": path, "dataset": {"num_workers": 2}}

    def _train(self, values: dict[str, Any], folder: Path) -> None:
        """Adds the settings of a training job, which writes to `folder`."""
        data, size = self.data, SIZES[self.data.size]
        values["includes"] = TRAINING
        values["dataset"] |= {
            "train_path": str(data.list_of("train", data.num_videos)),
            "val_path": str(data.list_of("val", data.num_val)),
            "tfeat_dir": f"{data.corpus}/feat/demo.bert-demo.",
            "num_video_per_batch": size.videos_per_batch,
        }
        values["model"]["layernorm_only"] = size.layernorm_only
        values["fairseq"] = {
            "dataset": {"num_workers": 2},
            "optimization": {"max_epoch": 1},
            "checkpoint": {"restore_file": None, "save_dir": str(folder)},
        }
        values["retri_epoch"] = 1 if self.refresh else None
        values["num_cands"] = 3 * size.videos_per_batch  # as in the recipe
        if self.plain:
            values["loss"] = {"loss_cls": "benchmarks.plain_parts.DenseLoss"}

    def run(self, *more: str) -> Lines:
        """Runs the command with the overrides `more`, and returns the lines that it printed."""
        command = ["locallaunch.py", str(self.write_yaml()), "--jobtype", self.job_type, *more]
        return run([sys.executable, *command])


def run(command: Sequence[str]) -> Lines:
    """Runs a command in the root of the project, with the code in it.

    Returns:
        The lines that the command printed, and `ENDED` at the end.
    Raises:
        LaunchError: the exit code is not 0.
    """
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    begin, lines = time.monotonic(), []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append((time.monotonic() - begin, line.rstrip("\n")))
            code = process.wait()
        except BaseException:
            process.terminate()  # the launcher then ends its own processes
            raise
    lines.append((time.monotonic() - begin, ENDED))
    if code:
        last = "\n".join(line for _, line in lines[-30:-1])
        raise LaunchError(f"{' '.join(command)} ended with exit code {code}:\n{last}")
    return lines


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
            raise LaunchError(f"the command printed no line `{pattern}`, which ends `{phase}`.")
        # The seconds in a line are rounded. Without `max`, a phase could end before it begins.
        ends.append(max(ends[-1], end_s))
    taken = [end - begin for begin, end in pairwise(ends)]
    return dict(zip(phases, taken, strict=True)) | {WHOLE: ends[-1]}


def find_end(lines: Lines, pattern: str) -> float | None:
    """Returns the time of the first line that matches `pattern`, less the seconds in its group."""
    for at_s, line in lines:
        if match := re.search(pattern, line):
            since_s = match[1] if match.re.groups else None
            return at_s - float(since_s or 0)
    return None


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Runs another process that keeps a core busy."""
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass"],
        preexec_fn=partial(end_with_parent, signal.SIGKILL),
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
    """Returns the seconds of the network of an evaluation, with all batches in memory."""
    with contextlib.chdir(ROOT):
        config = load_config(path)
    task = Task.from_config(config)
    dataset, model = task.build_dataset(Split.TEST), task.build_model(pretrained=False)
    assert dataset is not None
    batches = list(DataLoader(dataset, config.batch_size, collate_fn=collate))
    predictor = PREDICTORS.get(str(config.predictor), "predictor")(config.dataset)
    device = torch.device("cpu")
    predictor(model, batches[:1], device)  # warms up
    begin = time.perf_counter()
    predictor(model, batches, device)
    return time.perf_counter() - begin


def figures_of(job: Job, ours: Sequence[Seconds], plain: Sequence[Seconds]) -> list[Figure]:
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
        medians[figure.what.removeprefix(f"{job.name}: ")] = statistics.median(figure.ours)
    rows = []
    for figure, (what, median) in zip(figures, medians.items(), strict=True):
        row = [what, f"{median:.2f}", f"{100 * median / medians[WHOLE]:.0f} %"]
        row.append(f"{statistics.median(figure.plain):.2f}" if figure.plain else "")
        row.append(significant(statistics.median(figure.ratios)) if figure.ratios else "")
        rows.append(row)
    return text_table([job.name, "ours, s", "share", "plain, s", "times"], rows)


def prepare(size: str, args: Any) -> Data:
    """Writes the corpus and the BERT of a size."""
    num_videos = args.videos or SIZES[size].num_videos
    num_val = args.val_videos or SIZES[size].num_val
    all_val = max(num_val, args.test_videos if PREDICT in args.jobtype else 0)
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
    one_update = ["fairseq.optimization.max_update=1"] if jobs[0].job_type != PREDICT else []
    jobs[0].run(*one_update)
    for number, job, plain in product(range(args.rounds), jobs, sides):
        one = replace(job, plain=plain)
        with busy_core() if args.beside_busy else contextlib.nullcontext():
            seconds = measure(one.run(), one.phases)
        taken.setdefault(one, []).append(seconds)
        side = "plain" if plain else "ours"
        print(f"round {number + 1}, {one.name}, {side}: {seconds[WHOLE]:.1f} s", flush=True)
    figures = []
    for job in jobs:
        figures.append(figures_of(job, taken[job], taken.get(replace(job, plain=True), [])))
        if job.job_type == PREDICT:
            rounds = [run_in_new_process(network_s, job.write_yaml()) for _ in range(args.rounds)]
            figures[-1].append(Figure(f"{job.name}: network alone", "s", rounds))
    return figures


def main() -> None:
    """Runs the benchmark."""
    parser = Options(__doc__)
    work = Path(tempfile.gettempdir()) / "mmpt-whole-job"
    parser.add_argument("--size", choices=sorted(SIZES), nargs="+", default=["small"])
    parser.add_argument("--jobtype", choices=JOB_TYPES, nargs="+", default=JOB_TYPES[:2])
    parser.add_argument("--refresh", choices=["on", "off"], nargs="+", default=["on", "off"])
    parser.add_argument("--no-baseline", action="store_true", help="measure our side alone")
    parser.add_argument(
        "--beside-busy", action="store_true", help="keep a core busy with another process"
    )
    parser.number("--rounds", 3)
    parser.number("--videos", None, "training videos (small: 360, base: 96)")
    parser.number("--val-videos", None, "videos to validate on (small: 40, base: 16)")
    parser.number("--test-videos", 256, "videos to score on")
    parser.add_argument(
        "--work", type=Path, default=work, help="folder of the corpora, which are kept"
    )
    parser.add_argument("--out", type=Path, default=results.RESULTS, help="file to append to")
    args = parser.parse_args()
    every = []
    for size in args.size:
        jobs = jobs_of(prepare(size, args), args)
        every += list(zip(jobs, compare(jobs, args), strict=True))
    record([figure for _, figures in every for figure in figures], args.out)
    for job, figures in every:
        print(f"\n{summary(job, figures)}")


if __name__ == "__main__":
    run_script(main)
