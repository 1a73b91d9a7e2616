"""The checkpoint that a training continues or starts from, checked before the training starts."""

import os
import shlex
from pathlib import Path

from mmpt.config import RunConfig
from mmpt.config.run import LAST, last_checkpoint
from mmpt.errors import CheckpointError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

DEMO_COMMANDS = (
    "mmpt make-demo-data && mmpt train "
    "projects/retri/videoclip/how2_demo.yaml,projects/retri/norton/how2_demo.yaml --jobtype "
    "local_small"
)
OTHER_FEATURES = (
    "`model.layernorm_only` does not train the layer that takes the features. Set it to false, "
    "start from BERT, or correct `dataset.vfeat_dir`."
)


def check_start(config: RunConfig, *, leads: bool = True) -> None:
    """Raises CheckpointError unless fairseq can use the checkpoint that the training continues or
    starts from. For a bad `checkpoint_last.pt`, the error names the newest whole checkpoint.

    Args:
        leads: this is the first node of the job. It repairs a damaged checkpoint. The others only
            check that the file exists, because a repair may be in progress.
    """
    # deferred: imports torch
    from mmpt.inference.origin import find_other_features
    from mmpt.models.checkpoint import check_training_checkpoint
    from mmpt.models.checkpoint_folder import repair_last

    last = last_checkpoint(config.save_dir)
    path = last or config.option("checkpoint", "restore_file")
    if path is None or path == LAST:
        # The name alone means the file in `save_dir`, which does not exist.
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
    # The option is ignored when a run continues.
    resets = config.option("checkpoint", "reset_optimizer")
    if last is not None:
        repair_last(Path(last))
    try:
        check_training_checkpoint(path, optimizer=bool(last or not resets))
    except CheckpointError as err:
        if last is None:
            raise
        raise CheckpointError(f"{err}\n{_way_to_continue(last)}") from err
    if last is None and config.model.layernorm_only:
        other = find_other_features(Path(path), config.dataset)
        if other is not None:
            logger.warning("%s: %s. %s", path, other, OTHER_FEATURES)


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
