"""Folders of training runs as `mmpt train` writes them, with known numbers instead of results."""

from pathlib import Path
from typing import Any

import torch
import yaml

from mmpt.retrieval import Plan
from mmpt.utils.metrics_log import MetricsLog

UPDATES_PER_EPOCH = 10
CLIPS_PER_UPDATE = 64
CLIPS_PER_S = 32.0
SECONDS_PER_EPOCH = UPDATES_PER_EPOCH * CLIPS_PER_UPDATE / CLIPS_PER_S
TASK = "FairseqMMTask"


def loss(update: int, *, offset: float = 0.0) -> float:
    """Returns the training loss after an update."""
    return offset + 8 / (1 + update / 10)


def write_run(
    folder: Path,
    *,
    num_epochs: int = 3,
    max_epoch: int = 3,
    offset: float = 0.0,
    **settings: Any,
) -> Path:
    """Writes the folder of a training run that has completed `num_epochs` of `max_epoch` epochs.

    The validation loss is best after the second epoch.

    Args:
        offset: added to the losses.
        settings: further keys of `config.yaml`.
    """
    options = {
        "optimization": {"max_epoch": max_epoch, "lr": [0.001]},
        "checkpoint": {"save_dir": str(folder)},
    }
    config = {"dataset": {"max_len": 48}, "fairseq": options, **settings}
    log = MetricsLog(folder, 0)
    for epoch in range(1, num_epochs + 1):
        for update in range(2, UPDATES_PER_EPOCH + 1, 2):
            done = (epoch - 1) * UPDATES_PER_EPOCH + update
            value = loss(done, offset=offset)
            log.append("train", epoch, done, _metrics(value, done))
        end = epoch * UPDATES_PER_EPOCH
        valid = 5 + offset + abs(epoch - 2)
        log.append("valid", epoch, end, {"loss": valid, "clip_caption": valid - 1})
        hardness = {"mean_cosine": 0.5 + 0.1 * epoch, "coverage": 0.6 + 0.01 * epoch}
        hardness |= {"random_mean_cosine": 0.3, "refresh_s": 10.0 + epoch}
        plan = Plan(epoch, "fingerprint", "list", 2, ((0, 1),), hardness)
        plan.save(folder / "retri", ["a", "b"])
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    save(folder / "checkpoint_last.pt", num_epochs * UPDATES_PER_EPOCH, num_epochs + 1)
    save(folder / "checkpoint_best.pt", 2 * UPDATES_PER_EPOCH, 3, val_loss=5 + offset)
    return folder


def _metrics(value: float, update: int) -> dict[str, float]:
    terms = {"clip_caption": value - 0.5, "video_paragraph": 0.5, "accuracy": 0.1}
    speed = {"clips_per_s": CLIPS_PER_S, "bsz": float(CLIPS_PER_UPDATE)}
    more = {"data_wait": 0.25, "memory_gb": 1 + update / 100, "minutes_left": 7.0}
    return {"loss": value, "lr": 0.001 * update} | terms | speed | more


def save(
    path: Path,
    num_updates: int,
    epoch: int,
    *,
    in_epoch: int = 0,
    training_time_s: float = 60.0,
    val_loss: float | None = None,
    **task: Any,
) -> None:
    """Saves a checkpoint with the state of a training run, in fairseq's format, without weights.

    Args:
        epoch: the epoch that continues, or begins if `in_epoch` is 0.
        in_epoch: number of updates of this epoch.
        task: the entries of the task.
    """
    state = {
        "train_iterator": {"epoch": epoch, "iterations_in_epoch": in_epoch},
        "previous_training_time": training_time_s,
        "val_loss": val_loss,
        TASK: task,
    }
    history = [{"num_updates": num_updates}]
    torch.save({"extra_state": state, "optimizer_history": history, "model": {}}, path)
