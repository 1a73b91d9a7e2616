"""What an evaluation is made of: a predictor makes outputs of a model and a test set, metrics make numbers of outputs.

A benchmark brings an `Outputs` class, a predictor that makes it and a metric that takes it; nothing else knows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.config.schema import DatasetConfig
from mmpt.registry import Registry

Results = dict[str, dict[str, float]]
"""Metric class name -> number name -> value."""


class Outputs(ABC):
    """What a predictor makes of a whole test set."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Return plain arrays (no objects) by name, for the `.npz` of `--save-predictions`."""


O = TypeVar("O", bound=Outputs)  # noqa: E741
O_contra = TypeVar("O_contra", bound=Outputs, contravariant=True)


class BatchLoader(Protocol):
    """A sized stream of collated batches, such as a DataLoader or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ClipBatch]: ...


class Predictor(ABC, Generic[O]):
    """Runs a model over a test set.

    Args:
        config: the YAML's `dataset` section: window sizes, names of annotation files, the tokenizer.
    """

    makes: ClassVar[type[Outputs]]
    """Class of the outputs, which the metrics of a YAML must take."""
    reads: ClassVar[Mapping[str, int]] = {}
    """Tensors that an aligner's items must hold, and how many axes each has; others do not belong to this predictor."""

    def __init__(self, config: DatasetConfig):
        self.config = config

    @abstractmethod
    def __call__(self, model: nn.Module, loader: BatchLoader, device: torch.device) -> O:
        """Run `model` over `loader` on `device`, in eval mode and without gradients."""


class Number(NamedTuple):
    """One number of a metric, and how tables show it."""

    name: str
    title: str
    unit: Literal["share", "rank"] = "share"
    """A share (0..1) is shown in percent, a rank as it is."""


class Metric(ABC, Generic[O_contra]):
    """Numbers of one kind; the first of `numbers` decides which of several checkpoints is best."""

    takes: ClassVar[type[Outputs]]
    """Class of the outputs that `compute` reads."""
    numbers: ClassVar[tuple[Number, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of `numbers`."""
        return tuple(number.name for number in self.numbers)

    @abstractmethod
    def compute(self, outputs: O_contra) -> dict[str, float]:
        """Return a value for each of `numbers`, and perhaps details under other names, which tables leave out."""

    @abstractmethod
    def chance(self, outputs: O_contra) -> dict[str, float]:
        """Return what a model that scores at random is expected to reach on the same test set, as far as known."""

    @abstractmethod
    def summary(self, result: Mapping[str, float]) -> str:
        """Return `result` in the words of the release, for the log."""

    def best(self, result: Mapping[str, float]) -> float:
        """Return the number that checkpoints are compared by."""
        return result[self.numbers[0].name]


METRICS: Registry[Metric] = Registry("metric", Metric, "mmpt.evaluators", "mmpt.endtasks")
PREDICTORS: Registry[Predictor] = Registry(
    "predictor", Predictor, "mmpt.evaluators", "mmpt.endtasks"
)
