"""The state of a training run: whether it is running, how far it is, and its best checkpoint."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmpt.config.run import LAST, LOCK_NAME
from mmpt.config.yaml_files import Values, value_at
from mmpt.errors import CheckpointError
from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.lock import is_held

BEST = "checkpoint_best.pt"
Condition = Literal["running", "finished", "interrupted", "not finished"]
"""`not finished`: it is unknown whether the training is running."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a training run."""

    num_updates: int
    """Number of completed updates."""
    epoch: int
    """The last epoch that has begun, from 1."""
    num_epochs: int
    """Number of completed epochs."""
    is_due: bool = False
    """Whether the validation after the last update is still to be done."""
    has_stopped: bool = False
    """Whether early stopping or `stop_time_hours` has ended the training run."""


@dataclass(frozen=True, kw_only=True)
class BestCheckpoint:
    """The checkpoint with the best validation."""

    path: Path
    num_updates: int
    value: float
    """The value of `fairseq.checkpoint.best_checkpoint_metric`."""


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of a training run."""

    condition: Condition
    progress: Progress
    max_epoch: int
    """0: no limit. The same is true of `max_update`."""
    max_update: int
    best: BestCheckpoint | None
    """None without `checkpoint_best.pt`."""


def option(settings: Values, key: str, default: Any) -> Any:
    """Returns `fairseq.<key>` of the settings, or `default` if it is absent or null."""
    value = value_at(settings, f"fairseq.{key}")
    return default if value is None else value


def best_metric(settings: Values) -> tuple[str, bool]:
    """Returns the metric by which the best checkpoint is chosen, and whether more is better."""
    name = option(settings, "checkpoint.best_checkpoint_metric", "loss")
    is_maximum = option(settings, "checkpoint.maximize_best_checkpoint_metric", False)
    return str(name), bool(is_maximum)


def read_state(folder: Path, settings: Values, logged: Progress) -> State:
    """Returns the state of a training run. Nothing in its folder is changed.

    Args:
        folder: the `save_dir`.
        settings: the content of its `config.yaml`.
        logged: the progress in the last line of the metrics. The last checkpoint may have more.
    """
    # The lock comes first. Otherwise a training run that ends now would be called interrupted.
    held = is_held(folder / LOCK_NAME)
    saved = _saved_progress(folder / LAST, settings) or logged
    max_epoch = option(settings, "optimization.max_epoch", 0)
    max_update = option(settings, "optimization.max_update", 0)
    is_complete = 0 < max_epoch <= saved.num_epochs
    is_complete |= 0 < max_update <= saved.num_updates
    is_over = saved.has_stopped or (is_complete and not saved.is_due)
    condition: Condition = "not finished" if held is None else "interrupted"
    if held:
        condition = "running"
    elif is_over and saved.num_updates >= logged.num_updates:
        condition = "finished"
    return State(
        condition=condition,
        progress=max(saved, logged, key=lambda progress: progress.num_updates),
        max_epoch=max_epoch,
        max_update=max_update,
        best=_best_checkpoint(folder / BEST),
    )


def _saved_progress(path: Path, settings: Values) -> Progress | None:
    """Returns the progress in a checkpoint of a training run; None if it cannot be read."""
    checkpoint = _read(path)
    iterator = value_at(checkpoint, "extra_state.train_iterator") or {}
    if not iterator:
        return None
    # At the end of an epoch, fairseq stores the beginning of the next one.
    next_epoch = iterator.get("epoch", 1)
    is_end = iterator.get("iterations_in_epoch") == 0
    task = value_at(checkpoint, "extra_state.FairseqMMTask")
    num_bad = value_at(task, "should_stop_early.num_runs") or 0
    taken_s = value_at(checkpoint, "extra_state.previous_training_time") or 0
    max_bad = option(settings, "checkpoint.patience", -1)
    limit_s = 3600 * option(settings, "optimization.stop_time_hours", 0)
    return Progress(
        num_updates=_num_updates(checkpoint),
        epoch=max(next_epoch - is_end, 1),
        num_epochs=next_epoch - 1,
        is_due=bool(value_at(task, "is_due")),
        has_stopped=0 < max_bad <= num_bad or 0 < limit_s < taken_s,
    )


def _best_checkpoint(path: Path) -> BestCheckpoint | None:
    checkpoint = _read(path)
    value = value_at(checkpoint, "extra_state.val_loss")
    if value is None:
        return None
    return BestCheckpoint(
        path=path, num_updates=_num_updates(checkpoint), value=float(value)
    )


def _read(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint; empty if it is missing or damaged.

    The file is mapped, so that the weights are not read.
    """
    with suppress(CheckpointError):
        return load_checkpoint(path, mapped=True)
    return {}


def _num_updates(checkpoint: dict[str, Any]) -> int:
    history = checkpoint.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))
