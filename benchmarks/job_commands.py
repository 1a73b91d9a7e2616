"""The commands that whole_job.py measures: their input files, their YAMLs, and their phases."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt.config.yaml_files import write_yaml
from mmpt.errors import LaunchError
from results import ROOT

TRAINING = "experiments/norton.yaml"
SCORING = "projects/retri/norton/test_how2_demo_zs.yaml"
PREDICT = "local_predict"
JOB_TYPES = ("local_single", "local_small", PREDICT)
ENDED = "the command has ended"

Lines = list[tuple[float, str]]
"""The lines that a command printed, each with the seconds since the start of the command."""

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
    "small": Size(
        bert={"num_hidden_layers": 4},
        video_layers=2,
        layernorm_only=False,
        videos_per_batch=8,
        num_videos=360,
        num_val=40,
    ),
    "base": Size(
        bert={
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": 30522,
        },
        video_layers=6,
        layernorm_only=True,
        videos_per_batch=16,
        num_videos=96,
        num_val=16,
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
    """Number of validation videos in training. The corpus may have more for the evaluations."""

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
        whole_list = self.corpus / f"how2_s3d_{split}.lst"
        lines = whole_list.read_text().splitlines(keepends=True)
        path = self.work / f"{self.size}-{split}.lst"
        path.write_text("".join(lines[:num]))
        return path

    def write_bert(self) -> None:
        """Writes the folder `bert`: the vocabulary of the corpus with another configuration."""
        shutil.copytree(self.corpus / "bert", self.bert, dirs_exist_ok=True)
        path = self.bert / "config.json"
        config = json.loads(path.read_text())
        config.update(SIZES[self.size].bert)
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
        refresh = "with refresh" if self.refresh else "without refresh"
        return f"{name}, {refresh}"

    @property
    def phases(self) -> Mapping[str, str]:
        """The phases of the command and the patterns of the lines that end them."""
        if self.job_type == PREDICT:
            return SCORING_PHASES
        phases = dict(TRAINING_PHASES)
        if not self.refresh:
            del phases["refresh"]
        return phases

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
        values["fairseq"] = {
            "common_eval": {"path": [str(self.data.checkpoint)]},
            "dataset": {"num_workers": 2},
        }

    def _train(self, values: dict[str, Any], folder: Path) -> None:
        """Adds the settings of a training job, which writes to `folder`."""
        data = self.data
        size = SIZES[data.size]
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
        command = [
            "locallaunch.py",
            str(self.write_yaml()),
            "--jobtype",
            self.job_type,
            *more,
        ]
        return run([sys.executable, *command])


def run(command: Sequence[str]) -> Lines:
    """Runs a command in the root of the project, with the code in it.

    Returns:
        The lines that the command printed, and `ENDED` at the end.
    Raises:
        LaunchError: the exit code is not 0.
    """
    paths = [str(ROOT)]
    if inherited := os.environ.get("PYTHONPATH"):
        paths.append(inherited)
    # Show the whole log.
    environment = os.environ | {"LOGLEVEL": "INFO"}
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    begin = time.monotonic()
    lines: Lines = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                at_s = time.monotonic() - begin
                lines.append((at_s, line.rstrip("\n")))
            code = process.wait()
        except BaseException:
            process.terminate()  # the launcher then ends its own processes
            raise
    lines.append((time.monotonic() - begin, ENDED))
    if code:
        last = "\n".join(line for _, line in lines[-30:-1])
        raise LaunchError(f"{' '.join(command)} ended with exit code {code}:\n{last}")
    return lines
