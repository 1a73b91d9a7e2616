"""Arms and experiments, and the settings that several experiments share.

An arm is a training run without its seed: overrides of a YAML, a corpus and the run that it starts
from. Two arms with the same settings are one run, whatever their names are.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.corpora import Corpus

Overrides = Mapping[str, Any]
"""Dotted key of a YAML -> value."""

ROOT = Path(__file__).resolve().parents[1]
VIDEOCLIP = "projects/retri/videoclip/how2_demo.yaml"
NORTON = "experiments/norton.yaml"

COMMON: Overrides = {
    # The demo trains with two processes, each with batches of 8 videos. A single process that
    # averages the gradients of two batches makes the same updates. Two such runs at the same time
    # use two cores better than one run with two processes.
    "fairseq.optimization.update_freq": [2],
}

# The parameters that are trained, with a learning rate for them. All other settings are equal.
LAYERNORM: Overrides = {"fairseq.optimization.lr": [1e-3]}
ALL_WEIGHTS: Overrides = {
    "model.layernorm_only": False,
    "fairseq.optimization.lr": [3e-4],
}

# Losses. NORTON's YAML has the complete loss.
NORTON_LOSS: Overrides = {}
PLAIN_LOSS: Overrides = {
    "loss.sequence_contrast": None,
    "loss.sinkhorn_iterations": None,
}
NO_BUCKET: Overrides = {"loss.sequence_contrast.prompt_ratio": None}
POOLED_LOSS: Overrides = {
    **NO_BUCKET,
    # With this weight of the mean-pooled similarity, the fine-grained one is lost in rounding.
    "loss.fusion_weight": 1e6,
}
"""Model C in Table 7 of the paper: the mean-pooled similarity alone."""


@dataclass(frozen=True)
class Arm:
    """A training run without its seed."""

    name: str
    """Unique in its experiment."""
    title: str
    """Name in tables."""
    overrides: Overrides = field(default_factory=dict)
    """Overrides of `yaml`."""
    yaml: str = NORTON
    """The training YAML. `VIDEOCLIP` starts from random weights, and `NORTON` from the
    checkpoint of the VideoCLIP run with the same corpus and seed."""
    corpus: Corpus | None = None
    """Default: the corpus of the experiment."""
    against: str = ""
    """Name of the arm that this one is compared with, seed by seed. Default: none."""
    panel: str = ""
    """Title of a panel in the figure over levels. The arms with the same title are its points.
    Default: the arm is in no such figure."""
    level: float | None = None
    """Position on the x axis of the panel."""
    with_curves: bool = False
    """Record DTW and OTAM for several constants, which takes longer than all other scores."""

    @property
    def settings(self) -> dict[str, Any]:
        """All overrides, with the common ones."""
        return {**COMMON, **self.overrides}


START = Arm(
    "videoclip",
    "VideoCLIP (starting checkpoint)",
    yaml=VIDEOCLIP,
    with_curves=True,
)


def plain_and_norton(
    name: str,
    overrides: Overrides,
    *,
    corpus: Corpus | None = None,
    panel: str = "",
    level: float | None = None,
) -> tuple[Arm, Arm]:
    """Returns an arm with the plain loss, and one with Norton's loss that is compared with it.

    Args:
        name: name of the setting that both have in common.
        overrides: overrides of both.
        corpus: corpus of both. Default: the corpus of the experiment.
        panel: panel of the gain.
        level: position on the x axis of the panel.
    """
    plain_overrides = {**overrides, **PLAIN_LOSS}
    plain = Arm(f"{name}, plain", f"{name}, plain loss", plain_overrides, corpus=corpus)
    norton = Arm(
        f"{name}, norton",
        f"{name}, Norton",
        overrides,
        corpus=corpus,
        against=plain.name,
        panel=panel,
        level=level,
    )
    return plain, norton


@dataclass(frozen=True)
class Experiment:
    """A question, and the arms that answer it."""

    name: str
    question: str
    make_arms: Callable[[Corpus], Iterable[Arm]]
    """Returns the arms for a corpus."""
    corpora: tuple[Corpus, ...]
    """The corpora on which the experiment runs by default."""
    later: tuple[str, ...] = ()
    """Prefixes of the names of arms that the first pass leaves out. These arms run with `--all`, or
    if `--arms` names them."""
    num_seeds: int = 3
    x_title: str = ""
    """Meaning of `Arm.level`. Default: the experiment has no figure with levels."""

    def first_arms(self, corpus: Corpus) -> list[Arm]:
        """Returns the arms of a first pass."""
        return [arm for arm in self.arms(corpus) if not arm.name.startswith(self.later)]

    def arms(self, corpus: Corpus) -> list[Arm]:
        """Returns the arms for a corpus."""
        arms = list(self.make_arms(corpus))
        names = [arm.name for arm in arms]
        assert len(set(names)) == len(names), (
            f"names of {self.name} are not unique: {names}"
        )
        unknown = {arm.against for arm in arms} - {*names, ""}
        assert not unknown, f"{self.name} compares with unknown arms: {unknown}"
        return arms


@dataclass(frozen=True)
class Run:
    """A training run: an arm with a corpus and a seed."""

    arm: Arm
    corpus: Corpus
    seed: int

    @classmethod
    def of(cls, arm: Arm, corpus: Corpus, seed: int) -> "Run":
        """Returns the run of an arm in an experiment on `corpus`."""
        return cls(arm, arm.corpus or corpus, seed)

    @property
    def start(self) -> "Run | None":
        """The run from whose checkpoint this one starts."""
        return Run(START, self.corpus, self.seed) if self.arm.yaml == NORTON else None

    @property
    def arm_key(self) -> str:
        """Hash of the arm and the corpus without the seed. Names have no effect."""
        return _hash([self.arm.yaml, self.arm.settings, self.corpus.key])

    @property
    def key(self) -> str:
        """Hash of all settings of the run."""
        return _hash([self.arm_key, self.seed])

    @property
    def label(self) -> str:
        """Name in messages."""
        return f"{self.arm.name} on {self.corpus.name}, seed {self.seed}"


def override_args(overrides: Overrides) -> list[str]:
    """Returns overrides as command-line arguments: `key=value`, the value as YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in overrides.items()]


def _hash(value: Any) -> str:
    """Returns a short hash of plain values. The order of keys has no effect."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
