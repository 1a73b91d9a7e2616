"""An evaluation on the small corpus, with a checkpoint of random weights."""

from pathlib import Path

import torch

from mmpt.config import save_resolved
from mmpt.tasks import Task
from tests.support.jobs import SCORES, evaluation


def write_evaluation(folder: Path, corpus: Path, num_workers: int = 0) -> None:
    """Writes `scores.yaml`, the demo's evaluation on `corpus`, and `checkpoint.pt` to a folder.

    The results will be in its folder `scores`.
    """
    checkpoint, results = folder / "checkpoint.pt", folder / "scores"
    truth = f"test_path={corpus}/val_clips.json"
    config = evaluation(SCORES, corpus, truth, str(checkpoint), str(results))
    model = Task.from_config(config).build_model(pretrained=False)
    torch.save(model.state_dict(), checkpoint)
    config = config.with_option("dataset", "num_workers", num_workers)
    save_resolved(config, folder / "scores.yaml")
