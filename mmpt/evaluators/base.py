"""The parts of an evaluation: a predictor turns a model and a test set into outputs, a metric turns
outputs into numbers.

A benchmark brings an `Outputs` class, a predictor that makes it and a metric that takes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from mmpt.batch import ClipBatch
from mmpt.config.schema import DatasetConfig
from mmpt.errors import ConfigError, DataError
from mmpt.evaluators.inference import evaluating, model_inputs
from mmpt.registry import Registry
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

Results = dict[str, dict[str, float]]
"""Metric class name -> number name -> value."""


class Outputs(ABC):
    """A model's predictions on a whole test set."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Returns plain arrays (no objects) by name, for the `.npz` of `--save-predictions`."""


O = TypeVar("O", bound=Outputs)  # noqa: E741
O_contra = TypeVar("O_contra", bound=Outputs, contravariant=True)


class BatchLoader(Protocol):
    """A sized stream of collated batches, such as a DataLoader or a list."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ClipBatch]: ...


class Prepared(NamedTuple):
    """A batch, and the model's inputs from it on the model's device."""

    batch: Mapping[str, Any]
    inputs: dict[str, torch.Tensor]


Part = Mapping[str, Any]
"""What is predicted for a batch: tensors or arrays, concatenated over batches, or lists."""

CLIPS = {"caps": 1, "cmasks": 1, "vfeats": 2, "vmasks": 1}
"""Number of axes of an item that is a clip and its caption, for `Predictor.reads`."""
WHOLE_VIDEO = {"caps": 2, "cmasks": 2, "vfeats": 3, "vmasks": 2}
"""Number of axes of an item that is a whole video, cut into windows, with several texts."""


class Predictor(ABC, Generic[O]):
    """Runs a model over a test set.

    A subclass implements `predict`, which yields a part of the outputs per batch, and overrides
    `collect` where the concatenated parts are not yet the fields of its outputs.

    Args:
        config: the YAML's `dataset` section: window sizes, names of annotation files, tokenizer.
    """

    makes: ClassVar[type[Outputs]]
    """Class of the outputs, which the metrics of a YAML must take."""
    reads: ClassVar[Mapping[str, int]] = {}
    """Entries that an aligner's items must hold, and the number of axes of each."""
    needs: ClassVar[Mapping[str, str]] = {}
    """Entries that the model's output must hold, and a model that gives each."""
    counts: ClassVar[str] = "test batches embedded"
    """What the progress line counts."""
    listed_by: ClassVar[str] = "dataset.test_path"
    """Key of the file that lists the test set, for messages."""

    def __init__(self, config: DatasetConfig):
        self.config = config

    def __call__(self, model: nn.Module, loader: BatchLoader, device: torch.device) -> O:
        """Runs `model` over `loader` in eval mode, without gradients. The model stays on `device`.

        Raises:
            ConfigError: the model gives other outputs than this predictor reads.
            DataError: the test set is empty.
            CheckpointError: the model gives numbers that are not finite.
        """
        with evaluating(model.to(device)):
            counted = progress(loader, len(loader), self.counts, logger)
            batches = (Prepared(batch, model_inputs(batch, model, device)) for batch in counted)
            parts = list(self.predict(model, batches))
        if not parts:
            raise DataError(
                f"The test set is empty; check `{self.listed_by}` and `dataset.vfeat_dir`."
            )
        return self.collect({name: _join([part[name] for part in parts]) for name in parts[0]})

    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields what `model` predicts for each batch."""
        raise NotImplementedError

    def collect(self, columns: dict[str, Any]) -> O:
        """Returns the outputs from all parts, whose arrays are concatenated and lists joined."""
        return self.makes(**columns)  # type: ignore[return-value]

    def run(self, model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the model's output; ConfigError when it lacks an entry that is needed."""
        output: dict[str, torch.Tensor] = model(**inputs)
        if missing := [name for name in self.needs if name not in output]:
            problem = (
                f"`predictor: {type(self).__name__}` needs a model that gives "
                f"{', '.join(missing)}, such as {self.needs[missing[0]]}, but `model.model_cls` "
                f"gives {', '.join(output)}."
            )
            raise ConfigError("model", [problem])
        return output


def _join(values: list[Any]) -> Any:
    """Concatenates tensors or arrays to an array, and chains lists."""
    if isinstance(values[0], list):
        return list(chain.from_iterable(values))
    return np.concatenate([np.asarray(value) for value in values])


class Number(NamedTuple):
    """One number of a metric, and how tables show it."""

    name: str
    title: str
    unit: Literal["share", "rank"] = "share"
    """A share (0..1) is shown in percent, a rank as it is."""


class Metric(ABC, Generic[O_contra]):
    """Numbers of one kind. The first of `numbers` decides which of several checkpoints is best."""

    takes: ClassVar[type[Outputs]]
    """Class of the outputs that `compute` reads."""
    numbers: ClassVar[tuple[Number, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of `numbers`."""
        return tuple(number.name for number in self.numbers)

    @abstractmethod
    def compute(self, outputs: O_contra) -> dict[str, float]:
        """Returns a value for each of `numbers`; tables leave out values under other names."""

    @abstractmethod
    def chance(self, outputs: O_contra) -> dict[str, float]:
        """Returns the expected values of random scores on the same test set, as far as known."""

    @abstractmethod
    def summary(self, result: Mapping[str, float]) -> str:
        """Returns `result` in the words of the release, for the log."""

    def best(self, result: Mapping[str, float]) -> float:
        """Returns the number that checkpoints are compared by."""
        return result[self.numbers[0].name]


METRICS: Registry[Metric[Any]] = Registry("metric", Metric, "mmpt.evaluators", "mmpt.endtasks")
PREDICTORS: Registry[Predictor[Any]] = Registry(
    "predictor", Predictor, "mmpt.evaluators", "mmpt.endtasks"
)
