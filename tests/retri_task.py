"""A retrieval task on the small corpus that embeds three videos at a time, and its model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from mmpt.config import load_config
from mmpt.models.memory import MemoryPlan
from mmpt.tasks import Task, VideoRetriTask
from tests.jobs import VIDEOCLIP, corpus_overrides
from tests.parity.formula import fill_by_formula

CLIPS = 16  # of a video


class SmallPieces(VideoRetriTask):
    """As if memory held the clips of few videos only."""

    videos_at_once = 3

    def plan_memory(self, model: torch.nn.Module, device: torch.device) -> MemoryPlan:
        """Leave room for a few clips more than those of `videos_at_once` videos."""
        plan = super().plan_memory(model, device)
        return dataclasses.replace(plan, clips_per_forward=CLIPS * self.videos_at_once + 5)


def make_task(corpus: Path, save_dir: Path, *more: str, videos_at_once: int = 3) -> VideoRetriTask:
    """Return a task for `corpus` (32 videos, batches of 4), with settings changed by `more`."""
    config = load_config(
        VIDEOCLIP, [*corpus_overrides(corpus, save_dir), "fairseq.dataset.num_workers=0", *more]
    )
    task = SmallPieces(config)
    task.videos_at_once = videos_at_once
    return task


def make_model(task: Task) -> torch.nn.Module:
    """Return the task's model with weights from a formula."""
    model = task.build_model(pretrained=False)
    fill_by_formula(model, "hash")
    return model
