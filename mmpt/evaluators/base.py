"""The parts of an evaluation: predictors and metrics.

A predictor turns a model and a test set into outputs. A metric turns outputs into numbers. A
benchmark has a class of outputs, a predictor that makes them and a metric that takes them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from mmpt.config.schema import DatasetConfig
from mmpt.errors import CheckpointError, ConfigError, DataError
from mmpt.registry import Registry
from mmpt.utils.log import get_logger, progress

logger = get_logger(__name__)

MetricValues = dict[str, float]
"""Number name -> value."""
Results = dict[str, MetricValues]
"""Metric class name -> its numbers."""


class Outputs(ABC):
    """A model's predictions on a whole test set."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Returns plain arrays (no objects) by name, for the `.npz` of `--save-predictions`."""


O = TypeVar("O", bound=Outputs)  # noqa: E741


Tensors = dict[str, torch.Tensor]
Prepared = tuple[Mapping[str, Any], Tensors]
"""A batch, and the model's inputs from it on the model's device."""
Part = dict[str, Any]
"""Predictions for one batch: tensors, arrays or lists by name."""

CLIPS = {"caps": 1, "cmasks": 1, "vfeats": 2, "vmasks": 1}
"""Number of axes of an item that is a clip and its caption, for `Predictor.reads`."""
WHOLE_VIDEO = {"caps": 2, "cmasks": 2, "vfeats": 3, "vmasks": 2}
"""Number of axes of an item that is a whole video, cut into windows, with several texts."""


class Predictor(ABC, Generic[O]):
    """A class that runs a model over a test set.

    A subclass implements `predict`. It overrides `collect` if the concatenated parts are not yet
    the fields of its outputs.

    Args:
        config: the YAML's `dataset` section, such as window sizes, annotation files and tokenizer.
    """

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig
    """The keys under `dataset` that the class reads. A subclass of `DatasetConfig` adds keys."""
    output_type: ClassVar[type[Outputs]]
    """Class of the outputs, which the metrics of a YAML must take."""
    reads: ClassVar[Mapping[str, int]] = {}
    """Entries that the items of the aligner must have -> the number of axes of each."""
    model_outputs: ClassVar[Mapping[str, str]] = {}
    """Entries that the model's output must have -> a model that has the entry."""

    def __init__(self, config: DatasetConfig):
        self.config = config

    def __call__(self, model: nn.Module, loader: Any, device: torch.device) -> O:
        """Returns the outputs of `model` on the batches of `loader`.

        The model is moved to `device` and set to eval mode.

        Args:
            loader: collated batches with a length, such as a DataLoader or a list.
        Raises:
            ConfigError: the model does not have the outputs that this predictor reads.
            DataError: the test set is empty.
            CheckpointError: an output is not finite.
        """
        model.to(device).eval()
        with torch.inference_mode():
            counted = progress(loader, len(loader), "test batches scored", logger)
            batches = ((batch, model_inputs(batch, model, device)) for batch in counted)
            parts = list(self.predict(model, batches))
        if not parts:
            raise DataError(
                "The test set is empty; check the files that `dataset` names."
            )
        columns = {}
        for name in parts[0]:
            values = [part[name] for part in parts]
            columns[name] = _join(values)
        return self.collect(columns)

    @abstractmethod
    def predict(self, model: Any, batches: Iterable[Prepared]) -> Iterator[Part]:
        """Yields what `model` predicts for each batch."""

    def collect(self, columns: dict[str, Any]) -> O:
        """Returns the outputs from all parts, whose arrays are concatenated and lists joined."""
        return self.output_type(**columns)  # type: ignore[return-value]

    def run(self, model: nn.Module, inputs: Tensors) -> Tensors:
        """Returns the model's output.

        Raises:
            ConfigError: an entry that is needed is missing.
        """
        output: Tensors = model(**inputs)
        missing = [name for name in self.model_outputs if name not in output]
        if missing:
            wanted = ", ".join(missing)
            found = ", ".join(output)
            suitable = self.model_outputs[missing[0]]
            problem = (
                f"`predictor: {type(self).__name__}` needs a model that returns {wanted}, such as "
                f"{suitable}, but `model.model_cls` returns {found}."
            )
            raise ConfigError("model", [problem])
        return output


def _join(values: list[Any]) -> Any:
    """Returns tensors or arrays as one concatenated array, and lists as one list."""
    if isinstance(values[0], list):
        return list(chain.from_iterable(values))
    arrays = [np.asarray(value) for value in values]
    return np.concatenate(arrays)


def model_inputs(
    batch: Mapping[str, Any], model: nn.Module, device: torch.device
) -> Tensors:
    """Returns caps, cmasks, vfeats and vmasks on `device`, features in the model's dtype."""
    weight = next(model.parameters(), None)
    dtype = torch.float32 if weight is None else weight.dtype
    inputs = {name: batch[name].to(device) for name in CLIPS}
    inputs["vfeats"] = inputs["vfeats"].to(dtype)  # files hold float16
    return inputs


def require_finite(rows_ND: torch.Tensor, what: str) -> torch.Tensor:
    """Returns `rows_ND` unchanged.

    Args:
        what: what the rows are, such as `captions`, for messages.
    Raises:
        CheckpointError: a row holds NaN or infinity.
    """
    good_N = rows_ND.isfinite().all(dim=1)
    num_bad = int((~good_N).sum())
    if num_bad:
        raise CheckpointError(
            f"In one batch, the numbers of {num_bad} of {len(rows_ND)} {what} are not finite, so "
            "the checkpoint has diverged or the features are damaged; evaluate an earlier "
            "checkpoint or check `dataset.vfeat_dir`."
        )
    return rows_ND


class MetricValue(NamedTuple):
    """One number of a metric, and how tables show it."""

    name: str
    title: str
    unit: Literal["share", "rank"] = "share"
    """A share (0..1) is shown in percent, a rank as it is."""
    is_detail: bool = False
    """True: short tables leave the number out."""


class Metric(ABC, Generic[O]):
    """A class that computes numbers from outputs.

    The first of `numbers` decides which of several checkpoints is best.
    """

    input_type: ClassVar[type[Outputs]]
    """Class of the outputs that `compute` reads."""
    numbers: ClassVar[tuple[MetricValue, ...]]

    @abstractmethod
    def compute(self, outputs: O) -> MetricValues:
        """Returns a value for each of `numbers`. Tables leave out values with other names."""

    @abstractmethod
    def chance(self, outputs: O) -> MetricValues:
        """Returns the expected numbers of random scores on the same test set, if they are known."""

    def summary(self, result: Mapping[str, float]) -> str:
        """Returns the numbers of `result` on one line, for the log."""
        parts = []
        for number in self.numbers:
            value = result[number.name]
            parts.append(f"{number.name}: {value:.4f}")
        return " - ".join(parts)

    def deciding_value(self, results: Results) -> float:
        """Returns the value that checkpoints are compared by, the first of `numbers`.

        Args:
            results: the results of one checkpoint.
        """
        own = results[type(self).__name__]
        deciding = self.numbers[0]
        return own[deciding.name]


def prefixed(prefix: str, numbers: Mapping[str, float]) -> MetricValues:
    """Returns the numbers with `prefix` before their names."""
    return {prefix + name: value for name, value in numbers.items()}


PACKAGES = ("mmpt.evaluators", "mmpt.endtasks")
METRICS: Registry[Metric[Any]] = Registry("metric", Metric, *PACKAGES)
PREDICTORS: Registry[Predictor[Any]] = Registry("predictor", Predictor, *PACKAGES)
