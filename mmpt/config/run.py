"""A whole YAML file as one frozen value, which can be written as an equivalent YAML file, and as
fairseq's command-line flags.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmpt.config.schema import RetrievalConfig, Settings, SlurmConfig

LAST = "checkpoint_last.pt"
"""Name of the checkpoint from which a run continues."""
LOCK_NAME = ".lock"
"""File of a `save_dir` whose lock the launcher holds as long as it trains there."""
RESETS = "restore_file reset_dataloader reset_lr_scheduler reset_meters reset_optimizer"
"""Options that would discard the state of an interrupted run."""
DEMO_COMMANDS = (
    "mmpt make-demo-data && mmpt train "
    "projects/retri/videoclip/how2_demo.yaml,projects/retri/norton/how2_demo.yaml --jobtype "
    "local_small"
)
"""Commands that show a whole job on a small artificial data set, for messages."""
_COPY = re.compile("predict_(.+)-[0-9a-f]{8}")
"""Stem of an evaluation YAML that the launcher saved with overrides: the stem of the original, and
a hash of the settings."""


class RunConfig(Settings):
    """Everything that a YAML file describes, with defaults filled in."""

    path: str = ""
    """The YAML file."""

    def option(self, group: str, key: str, default: Any = None) -> Any:
        """Returns `fairseq.<group>.<key>`, or `default` when it is absent or null."""
        value = self.fairseq.get(group, {}).get(key)
        return default if value is None else value

    @property
    def name(self) -> str:
        """Stem of the YAML file. For a copy with overrides it is the stem of the original."""
        stem = Path(self.path).stem
        copy = _COPY.fullmatch(stem)
        if copy is not None:
            return copy[1]
        return stem

    @property
    def copy_name(self) -> str:
        """File name for a copy with overrides. Different settings give different names, so that two
        jobs can share a folder."""
        return f"predict_{self.name}-{self.fingerprint[:8]}.yaml"

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of all settings. The path of the YAML is not among them."""
        settings = json.dumps(self.to_dict(), sort_keys=True, default=str)
        return hashlib.sha256(settings.encode()).hexdigest()

    @property
    def is_test(self) -> bool:
        """True for an evaluation config, False for a training config."""
        return self.dataset.split == "test"

    @property
    def save_dir(self) -> str:
        """Folder of a training run's checkpoints."""
        save_dir = self.option("checkpoint", "save_dir")
        assert save_dir is not None, "only training configs have a save_dir"
        return str(save_dir)

    @property
    def num_workers(self) -> int:
        """Number of processes that load data. Default: 1, as in fairseq."""
        return int(self.option("dataset", "num_workers", 1))

    @property
    def batch_size(self) -> int:
        """Items per batch and process: fairseq's `batch_size` divided by `dataset.subsampling`.

        It is at least 1. Both settings are 1 by default.
        """
        size = int(self.option("dataset", "batch_size", 1))
        return max(size // (self.dataset.subsampling or 1), 1)

    @property
    def checkpoint_paths(self) -> tuple[str, ...]:
        """Checkpoints to evaluate: `fairseq.common_eval.path`, one or several."""
        paths = self.option("common_eval", "path", ())
        return (paths,) if isinstance(paths, str) else tuple(paths)

    def with_option(self, group: str, key: str, value: Any) -> RunConfig:
        """Returns a copy in which `fairseq.<group>.<key>` is `value`."""
        fairseq = {name: dict(options) for name, options in self.fairseq.items()}
        fairseq.setdefault(group, {})[key] = value
        return self.model_copy(update={"fairseq": fairseq})

    def to_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """Returns all settings that have a value, defaults included, as plain values for a YAML.

        Args:
            whole: also return `slurm` and the keys of retrieval if all of them have their defaults.
        """
        plain: Any = {"mode": "json", "exclude_none": True, "serialize_as_any": True}
        without = {"path", "retrieval"}
        if self.slurm == SlurmConfig() and not whole:
            without.add("slurm")
        values: dict[str, Any] = self.model_dump(exclude=without, **plain)
        if self.retrieval != RetrievalConfig() or whole:
            values |= self.retrieval.model_dump(**plain)
        return values


def last_checkpoint(save_dir: str) -> str | None:
    """Returns the checkpoint in a folder that a training run continues from, or None."""
    path = os.path.join(save_dir, LAST)
    return path if os.path.exists(path) else None


def fairseq_flags(config: RunConfig, *, without: Collection[str] = ()) -> list[str]:
    """Returns fairseq's options in the order of the YAML: one argv item per flag and value.

    A null value and a false switch give no flag. (The release turned fp16 on for any value.)

    Args:
        without: names of options to leave out.
    """
    flags: list[str] = []
    for options in config.fairseq.values():
        for name, value in options.items():
            if name in without or value is None or value is False:
                continue
            flags.append("--" + name.replace("_", "-"))
            if value is True:
                continue
            if name == "batch_size":
                value = config.batch_size
            elif name == "lr":
                value = value[0]
            elif name == "adam_betas" and isinstance(value, list):
                value = tuple(value)
            elif name == "path" and isinstance(value, list):
                value = ":".join(value)
            flags.append(str(value))
    return flags
