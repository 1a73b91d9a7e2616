"""Before a job starts: does every file that its config names exist? One message lists all that do
not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress

from mmpt.batch import Split
from mmpt.config import RunConfig
from mmpt.config.section import INPUT
from mmpt.errors import CheckpointError, DataError

DEMO_COMMANDS = (
    "mmpt make-demo-data && mmpt train "
    "projects/retri/videoclip/how2_demo.yaml,projects/retri/norton/how2_demo.yaml --jobtype "
    "local_small"
)


def check_data(config: RunConfig) -> None:
    """Raise DataError naming every data file that `config` needs and that is not there."""
    missing = [*_missing_named(config), *_missing_shards(config)]
    if missing:
        listed = "".join(f"  - {line}\n" for line in missing)
        raise DataError(
            f"{config.path}: files that it names do not exist:\n{listed}"
            "DATASET.md explains how to get or make them; paths are relative to the current "
            "directory.\n"
            f"To see the whole job work without them, run `make demo` or\n  {DEMO_COMMANDS}"
        )


def _missing_named(config: RunConfig) -> Iterator[str]:
    training_only = {"train_path", "val_path"}
    for name, field in type(config.dataset).model_fields.items():
        path = getattr(config.dataset, name)
        wanted = INPUT in field.metadata and not (config.is_test and name in training_only)
        if wanted and path is not None and not os.path.exists(path):
            yield f"{path} (`dataset.{name}`)"
    if config.dataset.vfeat_dir is not None and not os.path.isdir(config.dataset.vfeat_dir):
        yield f"{config.dataset.vfeat_dir} (the folder `dataset.vfeat_dir`)"


def _missing_shards(config: RunConfig) -> Iterator[str]:
    """Yield the missing first shards of features and captions; only How2's sharded data sets
    `tfeat_dir`.
    """
    folder, prefix = config.dataset.vfeat_dir, config.dataset.tfeat_dir
    if folder is None or prefix is None:
        return
    if config.is_test:
        splits = ["val"]
    else:
        splits = [
            split
            for split in ("train", "val")
            if getattr(config.dataset, f"{split}_path") is not None
        ]
    for split in splits:
        meta = os.path.join(folder, f"{split}_meta")
        if os.path.isdir(folder):
            if not os.path.exists(f"{meta}.json") and not os.path.exists(f"{meta}.pkl"):
                yield f"{meta}.json or {meta}.pkl (which video is in which shard)"
            yield from _absent(os.path.join(folder, f"{split}_0"), "features, `dataset.vfeat_dir`")
        for part in ("startends", "caps_ids"):
            yield from _absent(f"{prefix}{split}_0.{part}", "captions, `dataset.tfeat_dir`")


def _absent(stem: str, what: str) -> Iterator[str]:
    parts = [part for part in ("data", "starts") if not os.path.exists(f"{stem}_{part}.npy")]
    if len(parts) == 2:
        yield f"{stem}_{{data,starts}}.npy ({what})"
    elif parts:
        yield f"{stem}_{parts[0]}.npy ({what})"


def check_parts(config: RunConfig) -> None:
    """Build all parts of a training before any process starts, the model without memory for its
    weights.

    So every class is looked up, the list, the shards and the captions of every split are opened, an
    item is made where that is quick, and sizes of the model and the loss are checked.

    Raises:
        UserError: whatever a part finds wrong.
    """
    import torch  # deferred: seconds, and a mistake in the YAML needs none of it

    from mmpt.cli.compatibility import make_item  # deferred, as above
    from mmpt.tasks import Task  # deferred, as above

    log = logging.getLogger("mmpt")
    level = log.level
    log.setLevel(logging.ERROR)  # the training processes say the rest
    try:
        task = Task.from_config(config)
        for split in (Split.TRAIN, Split.VALID):
            dataset = task.build_dataset(split)
            if dataset and not dataset.aligner.takes_batches:
                make_item(config, dataset, 0)
        task.build_loss()
        with (
            torch.device("meta"),
            suppress(RuntimeError),
        ):  # a user's own model may look at numbers as it is built
            task.build_model(pretrained=False)
    finally:
        log.setLevel(level)


def last_checkpoint(config: RunConfig) -> str | None:
    """Return the `checkpoint_last.pt` that a training run can continue from, or None."""
    path = os.path.join(config.save_dir, "checkpoint_last.pt")
    return path if os.path.exists(path) else None


def check_restore_file(config: RunConfig) -> None:
    """Raise CheckpointError when the run is to start from a checkpoint that does not exist or
    cannot be used.
    """
    path = config.option("checkpoint", "restore_file")
    if path is None or path == "checkpoint_last.pt":  # that name means: in save_dir, if any
        return
    if os.path.exists(path):
        check_start(path)
        return
    raise CheckpointError(
        f"{path}: no such file; `fairseq.checkpoint.restore_file` of {config.path} names it as the "
        "weights to start from. Train it first (its folder is another run's `save_dir`: VideoCLIP "
        "before Norton), or download the released one as DATASET.md tells. The demo makes its "
        f"own:\n  {DEMO_COMMANDS}"
    )


def check_start(path: str) -> None:
    """Raise CheckpointError unless fairseq can start from, or go on with, the checkpoint at
    `path`.
    """
    from mmpt.models.checkpoint import check_training_checkpoint  # deferred, as above

    check_training_checkpoint(path)
