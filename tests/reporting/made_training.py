"""A training run's logs, written by the libraries and classes that training itself writes them with."""

from __future__ import annotations

import math
from pathlib import Path

from tensorboardX import SummaryWriter

from mmpt.retrieval import Hardness, Plan

STEPS = range(10, 101, 10)


def term(step: int) -> float:
    """What the made loss terms are at a step."""
    return 2 + 5 * math.exp(-step / 30)


def write_training(save_dir: Path) -> None:
    """Write scalars in fairseq's folders and names, and three plans with their hardness."""
    for split, steps in (("train_inner", STEPS), ("valid", (50, 100))):
        with SummaryWriter(str(save_dir / "run_0" / split)) as writer:
            writer.add_text("sys.argv", "fairseq-train")
            for step in steps:
                writer.add_scalar("clip_caption", term(step), step)
                writer.add_scalar("video_paragraph", 0.1 * term(step), step)
                writer.add_scalar("loss", 1.1 * term(step), step)
                writer.add_scalar("temperature", 0.07, step)
                writer.add_scalar("wps", 1000 + step, step)
    for epoch in (1, 2, 3):
        hardness = Hardness(mean_cosine=0.6 + 0.1 * epoch, random_mean_cosine=0.5, coverage=0.7)
        Plan(epoch, "fingerprint", 2, (("a", "b"),), hardness).save(save_dir / "retri")
