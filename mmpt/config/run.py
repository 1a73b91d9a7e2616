"""A whole YAML file as one frozen value, which can be written as YAML again and means the same when read back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt.config.schema import DatasetConfig, EvalConfig, LossConfig, ModelConfig, RetrievalConfig

FairseqOptions = dict[str, dict[str, Any]]
"""`fairseq:` group -> option -> value, in the order of the YAML (the order of the command line)."""


_COPY = re.compile("predict_(.+)-[0-9a-f]{8}")
"""Stem of an evaluation YAML that the launcher saved with overrides: the first one's, and a hash of the settings."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything one YAML file says, with defaults filled in."""

    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    """Which data, and how an item is made."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig | None = None
    """The objective; None in evaluation configs."""
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    """The epoch refresh, from the top-level keys of these names."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Where results go."""
    fairseq: FairseqOptions = field(default_factory=dict)
    """fairseq's own options by group."""
    clips_per_forward: int | str = "auto"
    """Clips that the embedding pass, validation and scoring compute at once. `auto`: 1024, on a CPU
    256; halved when the device is out of memory."""
    task: str | None = None
    """Inner task class; None: plain `Task`."""
    task_type: str | None = None
    """Job type to use when the command line names none."""
    metric: tuple[str, ...] = ()
    """Metric classes of an evaluation."""
    predictor: str | None = None
    """Predictor class of an evaluation."""
    resolved: bool = False
    """True once `batch_size` has been divided by `subsampling`; saved files say so, so that it happens once."""
    path: str = ""
    """The YAML file that was read."""

    def option(self, group: str, key: str, default: Any = None) -> Any:
        """Return `fairseq.<group>.<key>`, or `default` when it is absent or null."""
        value = self.fairseq.get(group, {}).get(key)
        return default if value is None else value

    @property
    def name(self) -> str:
        """The stem of the YAML file, or of the one that a copy with overrides was made of."""
        stem = Path(self.path).stem
        copy = _COPY.fullmatch(stem)
        return copy[1] if copy else stem

    @property
    def copy_name(self) -> str:
        """What to call a copy with overrides: other settings, another name, so that two jobs can share a folder."""
        settings = json.dumps(self.to_dict(), sort_keys=True, default=str)
        return f"predict_{self.name}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}.yaml"

    @property
    def is_test(self) -> bool:
        """True for an evaluation config, False for a training config."""
        return self.dataset.split == "test"

    @property
    def seed(self) -> int:
        """Seed of every random draw (fairseq's default is 1)."""
        return self.option("common", "seed", 1)

    @property
    def max_epoch(self) -> int:
        """Last epoch; 0 means no limit."""
        return self.option("optimization", "max_epoch", 0)

    @property
    def save_dir(self) -> str:
        """Folder of a training run's checkpoints."""
        save_dir = self.option("checkpoint", "save_dir")
        assert save_dir is not None, "only training configs have a save_dir"
        return save_dir

    @property
    def num_workers(self) -> int:
        """Processes that load data."""
        return self.option("dataset", "num_workers", 1)

    @property
    def batch_size(self) -> int:
        """Items per batch and process (1 when the YAML has none)."""
        return self.option("dataset", "batch_size", 1)

    @property
    def checkpoint_paths(self) -> tuple[str, ...]:
        """The checkpoints to evaluate: `fairseq.common_eval.path`, one or several."""
        paths = self.option("common_eval", "path", ())
        return (paths,) if isinstance(paths, str) else tuple(paths)

    def with_option(self, group: str, key: str, value: Any) -> RunConfig:
        """Return a copy in which `fairseq.<group>.<key>` is `value`."""
        fairseq = {name: dict(options) for name, options in self.fairseq.items()}
        fairseq.setdefault(group, {})[key] = value
        return dataclasses.replace(self, fairseq=fairseq)

    def to_dict(self) -> dict[str, Any]:
        """Return every setting that has a value, defaults included, as plain YAML-ready values."""
        whole = dataclasses.asdict(self)
        del whole["path"]
        retrieval = whole.pop("retrieval")
        if self.retrieval != RetrievalConfig():
            whole |= retrieval
        whole["metric"] = list(whole["metric"])
        return _without_empty(whole)


def _without_empty(mapping: dict[str, Any]) -> dict[str, Any]:
    """Drop None, empty lists and empty mappings at any depth."""
    cleaned = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in mapping.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != [] and value != {}}
