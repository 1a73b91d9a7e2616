"""Keeps at least one whole checkpoint in the folder of a run at all times.

A run continues from `checkpoint_last.pt`. The checkpoint before it is kept as
`checkpoint_previous.pt`, so that the run can continue even if a disk or a copy has damaged the last
one.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from mmpt.config.run import LAST
from mmpt.errors import CheckpointError, DamagedCheckpointError
from mmpt.models.checkpoint import check_training_checkpoint
from mmpt.utils.checkpoint_file import load_checkpoint, require_intact
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
PREVIOUS = "checkpoint_previous.pt"


def keep_previous(last: Path) -> None:
    """Keeps the file `last`, which is about to be replaced, as `checkpoint_previous.pt`."""
    if last.exists():
        keep_as(last, PREVIOUS)


def keep_as(path: Path, name: str) -> None:
    """Stores a file under a second name in its folder. The original name stays valid throughout.

    An existing file of the second name is replaced atomically.
    """
    part = path.with_name(f"{name}.tmp")
    part.unlink(missing_ok=True)
    try:
        os.link(path, part)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, part)
    os.replace(part, path.with_name(name))


def copy_whole(source: str | Path, target: str | Path) -> None:
    """Copies a file under a temporary name and renames it, so that `target` is never incomplete."""
    part = f"{target}.tmp"
    shutil.copyfile(source, part)
    os.replace(part, target)


def repair_last(last: Path) -> None:
    """Replaces a damaged `checkpoint_last.pt` by the newest whole checkpoint of its folder.

    The damaged file is kept as `checkpoint_last.pt.damaged`.

    Raises:
        CheckpointError: the file is damaged, and no other checkpoint of the folder is whole.
    """
    try:
        require_intact(last)
        return
    except DamagedCheckpointError as err:
        problem = err
    newest = newest_whole(last.parent, ignored=last)
    if newest is None:
        raise DamagedCheckpointError(
            f"{problem}\nNo other checkpoint of this run is whole. To start the run from its "
            f"beginning, remove {last} and run the same command again."
        )
    keep_as(last, f"{LAST}.damaged")
    copy_whole(newest, last)
    logger.warning(
        "%s\nThe run continues from %s, the newest whole checkpoint.", problem, newest
    )


def newest_whole(folder: Path, ignored: Path) -> Path | None:
    """Returns the checkpoint with the most updates among those that training can continue from.

    Returns None if there is none.

    Args:
        ignored: a file that is not considered.
    """
    found: list[tuple[int, float, Path]] = []
    for path in folder.glob("checkpoint*.pt"):
        if path == ignored:
            continue
        with suppress(CheckpointError):
            require_intact(path)
            check_training_checkpoint(path, optimizer=True)
            history = load_checkpoint(path, mapped=True)["optimizer_history"]
            num_updates = history[-1].get("num_updates", 0) if history else 0
            found.append((num_updates, path.stat().st_mtime, path))
    return max(found)[2] if found else None
