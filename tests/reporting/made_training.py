"""A training run's logs, written by the classes that training itself writes them with."""

from __future__ import annotations

import math
from pathlib import Path

from mmpt.retrieval import Hardness, Plan
from mmpt.utils.metrics_log import MetricsLog

STEPS = range(10, 101, 10)


def term(step: int) -> float:
    """Returns the value of the made loss term at a step."""
    return 2 + 5 * math.exp(-step / 30)


def write_training(save_dir: Path) -> None:
    """Writes metrics in fairseq's names, and three plans with their hardness."""
    log = MetricsLog(save_dir, num_updates=0)
    for split, steps in (("train", STEPS), ("valid", (50, 100))):
        for step in steps:
            terms = {"clip_caption": term(step), "video_paragraph": 0.1 * term(step)}
            speed = {"temperature": 0.07, "wps": 1000 + step}
            log.append(split, 1, step, {"loss": 1.1 * term(step)} | terms | speed)
    for epoch in (1, 2, 3):
        hardness = Hardness(mean_cosine=0.6 + 0.1 * epoch, random_mean_cosine=0.5, coverage=0.7)
        Plan(epoch, "fingerprint", 2, (("a", "b"),), hardness).save(save_dir / "retri")
