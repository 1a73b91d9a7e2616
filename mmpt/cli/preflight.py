"""Checks before a job starts: the files that its config names, and for a training also its
checkpoint and its parts.
"""

import logging
import os
import shlex
from pathlib import Path

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.config.schema import INPUT
from mmpt.errors import CheckpointError, DataError

DEMO_COMMANDS = (
    "mmpt make-demo-data && mmpt train "
    "projects/retri/videoclip/how2_demo.yaml,projects/retri/norton/how2_demo.yaml --jobtype "
    "local_small"
)


def check_data(config: RunConfig) -> None:
    """Raises DataError naming every data file and folder of `config` that is not there.

    The parts that read a folder find out what is missing in it.
    """
    dataset = config.dataset
    needed = {}  # path -> its key
    for name, field in type(dataset).model_fields.items():
        unused = config.is_test and name in ("train_path", "val_path")
        if INPUT in field.metadata and not unused:
            needed[getattr(dataset, name)] = f"`dataset.{name}`"
    missing = [
        f"  - {path} ({key})\n"
        for path, key in needed.items()
        if path is not None and not os.path.exists(path)
    ]
    if missing:
        raise DataError(
            f"{config.path}: files that it names do not exist:\n{''.join(missing)}"
            "DATASET.md explains how to get or make them; paths are relative to the current "
            "directory.\n"
            f"To see the whole job work without them, run `make demo` or\n  {DEMO_COMMANDS}"
        )


def last_checkpoint(config: RunConfig) -> str | None:
    """Returns the `checkpoint_last.pt` that a training run can continue from, or None."""
    path = os.path.join(config.save_dir, "checkpoint_last.pt")
    return path if os.path.exists(path) else None


def check_start(config: RunConfig, *, leads: bool = True) -> None:
    """Raises CheckpointError unless fairseq can use the checkpoint that the training continues or
    starts from. For a bad `checkpoint_last.pt`, the error names the newest whole checkpoint.

    Args:
        leads: this is the first node of the job. It repairs a damaged checkpoint. The others only
            check that the file exists, because a repair may be in progress.
    """
    # deferred: seconds, for torch
    from mmpt.models.checkpoint import check_training_checkpoint
    from mmpt.models.checkpoint_folder import repair_last

    last = last_checkpoint(config)
    path = last or config.option("checkpoint", "restore_file")
    if path is None or path == "checkpoint_last.pt":
        # That name means: in save_dir, if any.
        return
    if not os.path.exists(path):
        raise CheckpointError(
            f"{path}: no such file; `fairseq.checkpoint.restore_file` of {config.path} names it as "
            "the weights to start from. Train it first (its folder is another run's `save_dir`: "
            "VideoCLIP before Norton), or download the released one as DATASET.md explains. The "
            f"demo makes its own:\n  {DEMO_COMMANDS}"
        )
    if not leads:
        return
    # Ignored when a run continues.
    resets = config.option("checkpoint", "reset_optimizer")
    if last is not None:
        repair_last(Path(last))
    try:
        check_training_checkpoint(path, optimizer=bool(last or not resets))
    except CheckpointError as err:
        if last is None:
            raise
        raise CheckpointError(f"{err}\n{_way_to_continue(last)}") from err


def _way_to_continue(last: str) -> str:
    """Returns how to continue a run whose last checkpoint cannot be used, as sentences."""
    from mmpt.models.checkpoint_folder import newest_whole  # deferred, as above

    newest = newest_whole(Path(last).parent, ignored=Path(last))
    if newest is None:
        return (
            "No other checkpoint of this run is whole. To start the run from its beginning, remove "
            f"{last} and run the same command again."
        )
    command = shlex.join(["cp", str(newest), last])
    return (
        f"The newest whole checkpoint of this run is {newest}. To continue from it, run "
        f"`{command}` and the same command again."
    )


def check_parts(config: RunConfig) -> None:
    """Checks the parts of a training before any process starts.

    Every class is looked up. The list, the shards and the captions of every split are opened, and
    an item is made if that is quick. The settings of the model and the loss are checked. The model
    is not built.

    Raises:
        UserError: a part finds a mistake.
    """
    from mmpt.tasks import Task, checks  # deferred: seconds, for torch

    logging.disable(logging.WARNING)  # the training processes log the same
    try:
        task = Task.from_config(config)
        for split in (Split.TRAIN, Split.VALID):
            dataset = task.build_dataset(split)
            if dataset and not dataset.aligner.takes_batches:
                checks.make_item(config, dataset, 0)
        task.build_loss()
        checks.check_model(config)
    finally:
        logging.disable(logging.NOTSET)
