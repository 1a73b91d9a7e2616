"""Training runs that end early, because of a NaN or a limit, in forks of this process.

    python -m tests.support.ended_runs CORPUS FOLDER

Writes to FOLDER/results.json the exit codes of all runs, and the differences between finished runs
that must be equal.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mmpt.tasks.fairseqmmtask import FairseqMMTask
from tests.support.interruptions import Training, differences
from tests.support.jobs import VIDEOCLIP, corpus_overrides
from tests.support.paths import ROOT

SKIP = "loss.on_nonfinite=skip"
COMMON = [
    "fairseq.common.log_interval=1",
    "fairseq.optimization.warmup_updates=2",
    "fairseq.optimization.max_epoch=1",
    "fairseq.dataset.num_workers=0",
]
InChild = Callable[[int], None]


def break_batches(updates: tuple[int, ...], broken_rank: int, rank: int) -> None:
    """Makes the batches of some updates infinite, in one process."""
    original = FairseqMMTask.train_step

    def train_step(task: FairseqMMTask, sample: Any, *args: Any, **kwargs: Any) -> Any:
        if rank == broken_rank and kwargs["update_num"] + 1 in updates:
            sample = {**sample, "vfeats": sample["vfeats"] * float("inf")}
        return original(task, *args, sample=sample, **kwargs)

    FairseqMMTask.train_step = train_step  # type: ignore[method-assign]


def leave_out(updates: tuple[int, ...], rank: int) -> None:
    """Skips the optimizer's step of some updates."""
    original = FairseqMMTask.optimizer_step

    def optimizer_step(
        task: FairseqMMTask, *args: Any, update_num: int, **kwargs: Any
    ) -> None:
        if update_num + 1 not in updates:
            original(task, *args, update_num=update_num, **kwargs)

    FairseqMMTask.optimizer_step = optimizer_step  # type: ignore[method-assign]


def interrupt_after(update: int, in_child: InChild, rank: int) -> None:
    """Calls `in_child`, and makes the process end after an update, as if it was killed."""
    in_child(rank)
    original = FairseqMMTask.optimizer_step

    def optimizer_step(
        task: FairseqMMTask, *args: Any, update_num: int, **kwargs: Any
    ) -> None:
        original(task, *args, update_num=update_num, **kwargs)
        if update_num + 1 == update:
            os._exit(9)

    FairseqMMTask.optimizer_step = optimizer_step  # type: ignore[method-assign]


def main(arguments: Sequence[str]) -> None:
    """Runs all training runs.

    Args:
        arguments: the corpus, and the folder for the runs.
    """
    corpus, folder = map(Path, arguments)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    codes: dict[str, list[int]] = {}
    different: dict[str, list[str]] = {}

    def run(name: str, in_child: InChild, *more: str, size: int = 1) -> None:
        overrides = [
            text for text in corpus_overrides(corpus, folder) if "save_dir" not in text
        ]
        overrides += [*COMMON, *more]
        training = Training(VIDEOCLIP, overrides, folder / name, size, in_child)
        training.start()
        codes[name] = training.wait()

    run("stop", partial(break_batches, (3,), 1), size=2)
    run("skip", partial(break_batches, (3,), 1), SKIP, size=2)
    run(
        "gathered",
        partial(break_batches, (3,), 1),
        SKIP,
        "loss.gather_negatives=true",
        size=2,
    )
    run("left out", partial(leave_out, (3,)), size=2)
    broken = partial(break_batches, (2, 4), 0)
    run("bounded", broken, SKIP, "loss.max_skipped=1")
    both = [SKIP, "loss.max_skipped=1", "fairseq.checkpoint.save_interval_updates=1"]
    run("continued", partial(interrupt_after, 3, broken), *both)
    # The update that was skipped before the kill is counted, too.
    run("continued", broken, *both)

    run("whole", nothing)
    out_of_time = "fairseq.optimization.stop_time_hours=1e-9"
    for _ in range(2):  # the second start does nothing
        run("time", nothing, out_of_time)
        codes[f"time {len(codes)}"] = codes["time"]  # the next start overwrites "time"
    run("time", nothing)
    different["time"] = differences(folder / "whole", folder / "time")

    limit = "fairseq.optimization.max_update=3"
    constant = ["fairseq.optimization.lr=[1e-30]", "fairseq.optimization.max_epoch=4"]
    patient = [*constant, "fairseq.checkpoint.patience=1"]
    for name, keys in {"max_update": [limit], "early stop": patient}.items():
        run(name, nothing, *keys)
        shutil.copytree(folder / name, folder / f"{name} once")
        run(name, nothing, *keys)
        different[name] = differences(folder / f"{name} once", folder / name)

    results = {"codes": codes, "different": different}
    (folder / "results.json").write_text(json.dumps(results))


def nothing(rank: int) -> None:
    """Does not change a training run."""


if __name__ == "__main__":
    main(sys.argv[1:])
