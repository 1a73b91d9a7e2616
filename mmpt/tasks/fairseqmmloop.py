"""Extends fairseq's training loop so that no work is lost when a run is interrupted.

`wrap_training_loop` replaces these parts of fairseq:

- `fairseq_cli.train.validate_and_save`, which is called after every update, also saves every few
  minutes. If a process was asked to stop, it saves and ends the run.
- `fairseq_cli.train.train`, the loop of an epoch, does not begin if the run has ended already.
- `checkpoint_utils.load_checkpoint` also does the validation and the checkpoints that the
  interrupted run has left out.
- fairseq's optimizers for float16: see `fairseqmmscale.py`.
- `checkpoint_utils._torch_persistent_save` becomes `torch.save`. fairseq's function tries three
  times with the same open file, although the first attempt has left a part in it, and then logs a
  traceback.
- `checkpoint_utils.PathManager` never leaves an incomplete file under the name of a checkpoint.

A run that is asked to stop saves its state directly after an update, before the validation and the
regular checkpoints of this update. The checkpoint records this as `is_due`, and the run that
continues begins with both. So an interruption adds no validation, and a validation delays no
interruption.
"""

import atexit
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.logging import metrics, progress_bar

import mmpt
from mmpt.config.fairseq import preserve_root_logger
from mmpt.config.run import LAST
from mmpt.models.checkpoint_folder import copy_atomically, keep_previous
from mmpt.tasks.fairseqmmscale import save_loss_scale
from mmpt.tasks.fairseqmmstep import NonFiniteGradientError
from mmpt.utils.log import ON_SCREEN, ONLY_IN_LOG, format_seconds, get_logger
from mmpt.utils.screen import BarState, Screen, ScreenBar
from mmpt.utils.stopping import StopRequest

with preserve_root_logger():
    import fairseq_cli.train as loop

logger = get_logger(__name__)
Losses = tuple[list[float | None], bool]
"""Validation losses, and whether the run should stop."""


class RunState:
    """A record of what a run must do after an update, in addition to fairseq's intervals.

    Args:
        stop: the signals that this process receives.
        is_in_any: returns True in all processes if at least one of them passes True. It waits until
            all processes have called it.
        save_every_minutes: interval of additional checkpoints. None: there are none.
    """

    def __init__(
        self,
        stop: StopRequest,
        is_in_any: Callable[[bool], bool],
        save_every_minutes: float | None,
    ):
        self.stop = stop
        self.has_ended = False
        self._is_in_any = is_in_any
        self._every_s = 60 * (save_every_minutes or 0)
        self._saved_at = time.monotonic()
        self._stop_agreed = False
        self._is_due = False

    def update_stop_request(self, logging_outputs: list[dict[str, Any]]) -> bool:
        """Reads from the logs of all processes whether one was asked to stop, and returns it."""
        requests = [log.get("stop_requested", 0) for log in logging_outputs]
        self._stop_agreed |= any(number > 0 for number in requests)
        return self._stop_agreed

    def agrees_to_stop(self, *, is_end: bool) -> bool:
        """Returns whether a process was asked to stop. All processes return the same.

        They know it from the log of the update, which fairseq sums over the processes.

        Args:
            is_end: True at the end of an epoch. A refresh may follow, which ends at a signal
                without saving. So the processes ask each other once more.
        """
        return self._stop_agreed or (is_end and self._is_in_any(bool(self.stop)))

    def must_save(self) -> bool:
        """Returns whether the last checkpoint is at least `save_every_minutes` old."""
        return 0 < self._every_s <= time.monotonic() - self._saved_at

    def note_saved(self) -> None:
        """Stores the time of a checkpoint."""
        self._saved_at = time.monotonic()

    @contextmanager
    def saving(self, *, is_due: bool) -> Iterator[None]:
        """Sets the state that a checkpoint stores if it is saved in the block.

        Args:
            is_due: True if the validation and the other checkpoints of the update are still due.
        """
        self._is_due = is_due
        try:
            yield
        finally:
            self._is_due = False
        self.note_saved()

    def note_end(self, has_ended: bool) -> None:
        """Stores whether a validation has ended the run."""
        self.has_ended = has_ended

    def take_due(self) -> bool:
        """Returns whether the validation of the last update is still due, and resets this."""
        is_due, self._is_due = self._is_due, False
        return is_due

    def state_dict(self) -> dict[str, Any]:
        """Returns the entry for a checkpoint."""
        return {"is_due": self._is_due}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the entry of a checkpoint."""
        self._is_due = state["is_due"]


class StoppedInValidationError(Exception):
    """The processes have agreed to stop during a validation."""


class AtomicPathManager(PathManager):  # type: ignore[misc]
    """fairseq's file operations, with a copy that is atomic."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        """Copies a checkpoint to another name."""
        if Path(dst_path).name == LAST:
            keep_previous(Path(dst_path))
        copy_atomically(src_path, dst_path)
        return True

    @staticmethod
    def rename(src: str, dst: str) -> None:
        """Renames a completely written checkpoint to its final name."""
        if Path(dst).name == LAST:
            keep_previous(Path(dst))
        os.replace(src, dst)


@dataclass
class Position:
    """A place in a run, which fairseq's functions use like an iterator of an epoch."""

    epoch: int
    is_end: bool
    state: dict[str, Any]

    @classmethod
    def of(cls, state: dict[str, Any]) -> "Position":
        """Returns the place at which the iterator had this state.

        At the end of an epoch, fairseq stores the beginning of the next one.
        """
        is_end = state["iterations_in_epoch"] == 0
        epoch = state["epoch"] - 1 if is_end else state["epoch"]
        return cls(epoch, is_end, state)

    def end_of_epoch(self) -> bool:
        """Returns whether no batch of the epoch is left."""
        return self.is_end

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the iterator."""
        return dict(self.state)


def wrap_training_loop() -> None:
    """Replaces fairseq's functions in this process."""
    loop.validate_and_save = validate_and_save
    loop.train = train
    checkpoint_utils.load_checkpoint = load_checkpoint
    checkpoint_utils._torch_persistent_save = torch.save
    checkpoint_utils.PathManager = AtomicPathManager
    save_loss_scale()


_original_load = checkpoint_utils.load_checkpoint
_original_train = loop.train
_original_validate_and_save = loop.validate_and_save


def load_checkpoint(
    cfg: Any, trainer: Any, **kwargs: Any
) -> tuple[dict[str, Any] | None, Any]:
    """Loads a checkpoint as fairseq does, and does the validation and checkpoints that are due."""
    extra_state, epoch_itr = _original_load(cfg, trainer, **kwargs)
    task = trainer.task
    is_due = task.run.take_due()
    task.begin_log(trainer.get_num_updates(), is_due=is_due)
    if is_due and extra_state is not None:
        position = Position.of(extra_state["train_iterator"])
        task.begin_epoch(position.epoch, trainer.get_model())
        subsets = trainer.cfg.dataset.valid_subset.split(",")
        _, has_ended = _original_validate_and_save(
            without_time_limit(trainer.cfg),
            trainer,
            task,
            position,
            subsets,
            position.is_end,
        )
        task.run.note_end(has_ended)
    return extra_state, epoch_itr


def train(cfg: Any, trainer: Any, task: Any, epoch_itr: Any) -> Losses:
    """Trains for one epoch as fairseq does, unless the run has ended already.

    fairseq itself checks the conditions for the end only after an update. It would make one more
    update whenever a run that has ended is started again.
    """
    num_updates, max_update = trainer.get_num_updates(), cfg.optimization.max_update
    # Number of validations since the best one.
    num_worse = getattr(loop.should_stop_early, "num_runs", 0)
    is_complete = 0 < max_update <= num_updates
    is_late = num_updates > 0 and is_out_of_time(cfg, trainer)
    is_stopped_early = 0 < cfg.checkpoint.patience <= num_worse
    if task.run.has_ended or is_complete or is_late or is_stopped_early:
        message = "this run has ended: there is nothing left to train"
        logger.info(message, extra=ON_SCREEN)
        return [None], True
    try:
        return _original_train(cfg, trainer, task, epoch_itr)
    except FloatingPointError as err:
        raise NonFiniteGradientError(task.describe_failure(str(err))) from err


def validate_and_save(
    cfg: Any,
    trainer: Any,
    task: Any,
    epoch_itr: Any,
    valid_subsets: list[str],
    end_of_epoch: bool,
) -> Losses:
    """Validates and saves as fairseq does, or saves and ends the run. Called after every update."""
    if is_out_of_time(cfg, trainer):
        save_now(cfg, trainer, epoch_itr, is_due=True)
        logger.info(
            "the training run has taken `stop_time_hours` (%s): saved after update %d. To "
            "continue, raise it and run the same command again",
            cfg.optimization.stop_time_hours,
            trainer.get_num_updates(),
            extra=ON_SCREEN,
        )
        return [None], True
    if task.run.agrees_to_stop(is_end=end_of_epoch):
        save_and_end(cfg, trainer, task, epoch_itr)
    try:
        losses = _original_validate_and_save(
            without_time_limit(cfg),
            trainer,
            task,
            epoch_itr,
            valid_subsets,
            end_of_epoch,
        )
    except StoppedInValidationError:
        save_and_end(cfg, trainer, task, epoch_itr)
    if task.run.must_save():
        save_now(cfg, trainer, epoch_itr, is_due=False)
    return losses


def is_out_of_time(cfg: Any, trainer: Any) -> bool:
    """Returns whether the run has taken `stop_time_hours`, in the first start and all restarts."""
    limit_s = cfg.optimization.stop_time_hours * 3600
    return bool(0 < limit_s < trainer.cumulative_training_time())


def without_time_limit(cfg: Any) -> Any:
    """Returns the settings without `stop_time_hours`, after which fairseq itself would validate."""
    if cfg.optimization.stop_time_hours > 0:
        cfg = deepcopy(cfg)
        cfg.optimization.stop_time_hours = 0
    return cfg


def save_now(cfg: Any, trainer: Any, epoch_itr: Any, *, is_due: bool) -> None:
    """Writes `checkpoint_last.pt`, and no other checkpoint, without a validation.

    Args:
        is_due: the validation and the checkpoints of this update have not been done.
    """
    settings = copy(cfg.checkpoint)
    settings.save_interval_updates = 0
    settings.no_epoch_checkpoints = True
    settings.no_last_checkpoints = False
    with trainer.task.run.saving(is_due=is_due):
        checkpoint_utils.save_checkpoint(settings, trainer, epoch_itr, None)


def save_and_end(cfg: Any, trainer: Any, task: Any, epoch_itr: Any) -> None:
    """Saves the state of the run and ends this process. All processes of a run call it together."""
    update = trainer.get_num_updates()
    save_now(cfg, trainer, epoch_itr, is_due=True)
    task.world.broadcast_object(None)  # waits until rank 0 has written the file
    task.end_logs()
    task.stop.end(
        f"saved {os.path.join(cfg.checkpoint.save_dir, LAST)} after update {update}"
    )


def state_of_loop() -> dict[str, Any]:
    """Returns the parts of the loop's state that fairseq itself does not restore.

    These are the state of early stopping, and the means since the last line of the log. (fairseq
    restores the latter, but not at the beginning of an epoch.)
    """
    early = loop.should_stop_early
    early_state = {}
    for name in ("best", "num_runs"):
        if hasattr(early, name):
            early_state[name] = getattr(early, name)
    return {
        "should_stop_early": early_state,
        "train_inner": metrics.state_dict().get("train_inner"),
    }


def restore_loop(state: dict[str, Any]) -> None:
    """Restores the state that `state_of_loop` has returned."""
    for name, value in state["should_stop_early"].items():
        setattr(loop.should_stop_early, name, value)
    if state["train_inner"] is not None:
        metrics.load_state_dict({"train_inner": state["train_inner"]})


def show_metrics(screen: Screen) -> None:
    """Makes fairseq's progress bars show their metrics on the screen, and write them to the log."""
    make_bar = progress_bar.progress_bar
    state = BarState(screen)

    def screen_bar(
        batches: Any, log_format: str | None = None, **settings: Any
    ) -> ScreenBar:
        in_log = "simple" if log_format in (None, "tqdm") else log_format
        bar = make_bar(batches, log_format=in_log, **settings)
        is_valid = settings.get("prefix") is not None
        return ScreenBar(bar, batches, settings["epoch"], state, is_valid=is_valid)

    progress_bar.progress_bar = screen_bar


def run_fairseq(command: Sequence[str], screen: Screen | None = None) -> None:
    """Runs `fairseq-train` in this process, and exits if it fails.

    Args:
        command: argv of `fairseq-train`.
        screen: shows the metrics.
    """
    import_module("mmpt.tasks.fairseqmmtask")  # deferred: it imports this module

    sys.argv = list(command)
    # fairseq compares paths to find out that the package is imported already.
    sys.argv[sys.argv.index("--user-dir") + 1] = str(Path(mmpt.__file__).parent)
    logger.info("%s", shlex.join(sys.argv))
    if screen is not None:
        show_metrics(screen)
    begin = time.monotonic()
    try:
        loop.cli_main()
        took = format_seconds(time.monotonic() - begin)
        logger.info("the training run has ended after %s", took, extra=ON_SCREEN)
    except Exception:
        logger.error("the training run has failed", exc_info=True, extra=ONLY_IN_LOG)
        if screen is not None:
            screen.close()
        sys.excepthook(*sys.exc_info())  # the task's, which reports mistakes and exits
        sys.exit(1)
    finally:
        if screen is not None:
            screen.close()
        atexit._run_exitfuncs()  # Python does not run them in a forked process
