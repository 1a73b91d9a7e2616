"""Training runs that are killed, and continued with another number of processes.

    python -m tests.support.other_sizes CORPUS FOLDER

Writes to FOLDER/results.json the exit codes of each run, and the largest difference of a weight
from an uninterrupted run with two processes. In that run, in `2 to 1` and in `1 to 2`, all updates
average the gradients of two batches. These runs differ only by rounding.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from mmpt.utils.checkpoint_file import load_checkpoint
from tests.support.ended_runs import interrupt_after, nothing
from tests.support.interruptions import Training
from tests.support.jobs import VIDEOCLIP, corpus_overrides
from tests.support.paths import ROOT

COMMON = [
    "fairseq.common.log_interval=1",
    "fairseq.optimization.warmup_updates=2",
    "fairseq.optimization.max_epoch=1",
    "fairseq.dataset.num_workers=0",
    "fairseq.checkpoint.save_interval_updates=1",
]
TWO_BATCHES = "fairseq.optimization.update_freq=[2]"


def main(arguments: Sequence[str]) -> None:
    """Runs all training runs."""
    corpus, folder = map(Path, arguments)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.ERROR)
    overrides = [
        text for text in corpus_overrides(corpus, folder) if "save_dir" not in text
    ]
    overrides += COMMON
    codes: dict[str, list[list[int]]] = {}

    def run(name: str, size: int, *more: str, killed_after: int = 0) -> None:
        in_child = partial(interrupt_after, killed_after, nothing)
        keys = [*overrides, *more]
        training = Training(VIDEOCLIP, keys, folder / name, size, in_child)
        training.start()
        codes.setdefault(name, []).append(training.wait())

    run("whole", 2)
    run("2 to 1", 2, killed_after=3)
    run("2 to 1", 1, TWO_BATCHES)
    run("1 to 2", 1, TWO_BATCHES, killed_after=3)
    run("1 to 2", 2)
    run("smaller updates", 2, killed_after=3)
    run("smaller updates", 1)
    run("odd", 1, killed_after=4)
    run("odd", 2)

    whole = load_checkpoint(folder / "whole/checkpoint_last.pt")["model"]
    worst = {}
    for name in codes:
        model = load_checkpoint(folder / name / "checkpoint_last.pt")["model"]
        worst[name] = max(float((model[key] - whole[key]).abs().max()) for key in whole)
    results = {"codes": codes, "worst": worst}
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
