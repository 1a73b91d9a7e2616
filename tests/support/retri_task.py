"""A retrieval task on the small corpus that embeds three videos at a time, and its model."""

from pathlib import Path

import torch

from mmpt.config import load_config
from mmpt.tasks import Task, VideoRetriTask
from tests.support.formula import fill_by_formula
from tests.support.jobs import VIDEOCLIP, corpus_overrides

CLIPS = 16  # of a video


def make_task(
    corpus: Path, save_dir: Path, *more: str, videos_at_once: int = 3
) -> VideoRetriTask:
    """Returns a task for `corpus` (32 videos, batches of 4), with further overrides `more`."""
    # There is room for 5 more clips, but not for a whole video.
    few = f"clips_per_forward={CLIPS * videos_at_once + 5}"
    own = ["fairseq.dataset.num_workers=0", few, *more]
    return VideoRetriTask(
        load_config(VIDEOCLIP, [*corpus_overrides(corpus, save_dir), *own])
    )


def make_model(task: Task) -> torch.nn.Module:
    """Returns the task's model with weights from a formula."""
    model = task.build_model(pretrained=False)
    fill_by_formula(model, "hash")
    return model
