"""Short trainings of the demo with whole commands: precision, interruption, and two processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu_day.part import Report
from mmpt.prepare.demo_corpus.corpus import make_corpus
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.metrics_log import read_metrics
from results import ROOT

YAML = "projects/retri/videoclip/how2_demo.yaml"
POLL_S = 0.2
LIMIT_S = 40
"""Longest time to wait for one of two processes, which may wait for each other forever."""
LAST_CHARACTERS = 3000
"""Characters of the end of a failed job's log that are reported."""


@dataclass
class Training:
    """A training of the demo on a corpus, as a command.

    Args:
        corpus: folder of the corpus.
        save_dir: folder of the run.
        settings: overrides of the YAML.
    """

    corpus: Path
    save_dir: Path
    settings: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The file of the output of all starts."""
        return self.save_dir.with_suffix(".log")

    def start(self, *options: str, **environment: str) -> None:
        """Starts the command, with more options of the launcher."""
        paths = {
            "bert_name": "bert",
            "vfeat_dir": "feat",
            "tfeat_dir": "feat/demo.bert-demo.",
            "train_path": "how2_s3d_train.lst",
            "val_path": "how2_s3d_val.lst",
        }
        overrides = [
            f"dataset.{key}={self.corpus}/{path}" for key, path in paths.items()
        ]
        overrides += [
            f"fairseq.checkpoint.save_dir={self.save_dir}",
            f"eval.save_path={self.save_dir}",
            *self.settings,
        ]
        command = [sys.executable, "locallaunch.py", YAML, "--jobtype", "local_1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options, *overrides],
                cwd=ROOT,
                env=os.environ | {"LOGLEVEL": "INFO"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self, limit_s: float | None = None) -> None:
        """Waits for the end of the command.

        Raises:
            RuntimeError: its exit code is not 0.
            subprocess.TimeoutExpired: it has not ended after `limit_s`.
        """
        assert self.process is not None
        code = self.process.wait(limit_s)
        if code:
            text = self.log.read_text(errors="replace")[-LAST_CHARACTERS:]
            raise RuntimeError(
                f"{self.save_dir.name} ended with exit code {code}:\n{text}"
            )

    def kill_after_epoch(self, epoch: int) -> bool:
        """Kills the command when it has logged an update of a later epoch.

        Returns:
            False if the command has ended before.
        """
        assert self.process is not None
        while self.process.poll() is None:
            rows = read_metrics(self.save_dir)
            if any(row["split"] == "train" and row["epoch"] > epoch for row in rows):
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                return True
            time.sleep(POLL_S)
        return False

    def losses(self) -> list[float]:
        """Returns the validation loss of each epoch."""
        rows = read_metrics(self.save_dir)
        return [row["loss"] for row in rows if row["split"] == "valid"]


def make_demo(report: Report) -> Path:
    """Writes a corpus and returns its folder."""
    corpus = report.path.parent / f"corpus_{report.rehearse}"
    num_videos, num_val = (32, 8) if report.rehearse else (200, 64)
    make_corpus(corpus, CorpusSettings(num_videos=num_videos, num_val=num_val))
    return corpus


def settings(report: Report, *more: str) -> list[str]:
    """Returns the overrides of all trainings."""
    # A GPU is used if the machine has one, so that a rehearsal runs the same command.
    found = ["fairseq.common.cpu=false", "fairseq.common.log_interval=1", *more]
    if report.rehearse:
        found += ["fairseq.optimization.max_epoch=2", "dataset.num_video_per_batch=4"]
        found += ["num_cands=8", "fairseq.dataset.num_workers=0"]
    else:
        found += ["fairseq.optimization.max_epoch=4"]
    return found


def train_kill_and_continue(report: Report) -> None:
    """Trains in fp16 on the GPU and in float32 on the CPU; kills a third run and continues it.

    All run at the same time.
    """
    corpus, folder = make_demo(report), report.path.parent
    half = settings(report, "fairseq.common.fp16=true")
    on_gpu = Training(corpus, folder / "fp16", half)
    on_cpu = Training(
        corpus, folder / "cpu", [*settings(report), "fairseq.common.cpu=true"]
    )
    killed = Training(corpus, folder / "killed", half)
    everything = [on_gpu, killed] if report.rehearse else [on_gpu, killed, on_cpu]
    begin = time.monotonic()
    for training in everything:
        training.start()
    with report.attempt("kill and continue"):
        report.add("training, was killed", killed.kill_after_epoch(1))
        killed.start()
        killed.wait()
        log = killed.log.read_text(errors="replace")
        report.add("training, continued", "continuing from" in log)
        report.add("training, killed and continued: validation losses", killed.losses())
    for training in everything:
        name = training.save_dir.name
        if training is not killed:
            with report.attempt(name):
                training.wait()
                report.add(f"training, {name}: validation losses", training.losses())
    report.add("training, all: s", time.monotonic() - begin)
    compare_losses(report)


def compare_losses(report: Report) -> None:
    """Records the last losses relative to the last loss of the uninterrupted fp16 run."""
    losses = {}
    for name, value in report.values.items():
        if name.endswith("validation losses") and value:
            losses[name.split(":")[0].removeprefix("training, ")] = value
    whole = losses.get("fp16")
    if not whole:
        return
    report.add("training, fp16 loss falls", whole[-1] < whole[0])
    for name in ("cpu", "killed and continued"):
        if name in losses:
            difference = losses[name][-1] / whole[-1] - 1
            report.add(f"training, last loss of {name}, relative to fp16", difference)


def train_in_two_processes(report: Report) -> None:
    """Trains in two processes on one GPU, and compares with one process and twice the batches.

    Each process is started as if it had a machine of its own. NCCL allows two processes on a GPU
    only in new versions, if a variable asks for it.
    """
    corpus, folder = make_demo(report), report.path.parent
    same = settings(report, "fairseq.common.seed=5")
    same.append("fairseq.optimization.max_epoch=1")
    one = Training(
        corpus, folder / "one", [*same, "fairseq.optimization.update_freq=[2]"]
    )
    one.start()
    done = ""
    for backend in ("gloo",) if report.rehearse else ("nccl", "gloo"):
        if backend == "nccl" and not done:
            report.add("processes, NCCL", ".".join(map(str, torch.cuda.nccl.version())))
        with report.attempt(f"two processes with {backend}"):
            run_two(report, corpus, folder / backend, same, backend)
            done = backend
            break
    with report.attempt("one process"):
        one.wait()
    if not done:
        return
    if done == "gloo":
        # NCCL may refuse two processes on one GPU. Then this part has not failed.
        refused = report.errors.pop("two processes with nccl", "")
        report.add("processes, NCCL refused", refused[-300:])
    report.add("processes, back end", done)
    mine = load_checkpoint(folder / "one" / "checkpoint_last.pt")["model"]
    two = load_checkpoint(folder / done / "checkpoint_last.pt")["model"]
    differences = [float((mine[name] - two[name]).abs().mean()) for name in mine]
    report.add(
        "processes, mean difference of weights", sum(differences) / len(differences)
    )


def run_two(
    report: Report, corpus: Path, save_dir: Path, overrides: Sequence[str], backend: str
) -> None:
    """Runs a training in two processes of two launchers.

    Raises:
        RuntimeError: one of them fails.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "NCCL_MULTI_RANK_GPU_ENABLE": "1",
        "NCCL_SOCKET_IFNAME": "lo",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    options = [*overrides]
    if not report.rehearse:
        options.append(f"fairseq.distributed_training.distributed_backend={backend}")
    nodes = (
        "--nnodes",
        "2",
        "--rdzv-endpoint",
        f"127.0.0.1:{port}",
        "--rdzv-id",
        backend,
    )
    ranks = [Training(corpus, save_dir, options) for _ in range(2)]
    begin = time.monotonic()
    for number, rank in enumerate(ranks):
        rank.start(*nodes, "--node-rank", str(number), **variables)
    try:
        for rank in ranks:
            rank.wait(LIMIT_S)
    finally:
        for rank in ranks:
            if rank.process is not None:
                # The processes of a launcher end with it.
                rank.process.kill()
                rank.process.wait()
    report.add(f"processes, two with {backend}: s", time.monotonic() - begin)
    losses = re.findall(r"\| train \| .*?\| loss ([\d.]+)", ranks[0].log.read_text())
    report.add(f"processes, two with {backend}: training loss", losses)
