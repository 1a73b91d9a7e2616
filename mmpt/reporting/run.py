"""The input of a report, an `EvaluationRun`, and its parts, `Section`s."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, NamedTuple

from torch import nn

from mmpt.config import RunConfig
from mmpt.datasets import MMDataset
from mmpt.evaluators import Outputs, Results
from mmpt.reporting.frames import KeyFrames


@dataclass(frozen=True, kw_only=True)
class EvaluationRun:
    """The evaluation of one or several checkpoints on a test set."""

    config: RunConfig
    rows: Sequence[dict[str, Any]]
    """The rows of results.json, one per checkpoint."""
    names: Sequence[str]
    """The names of the checkpoints in tables."""
    chance: Results
    """The metrics of random predictions."""
    best: int
    """Position of the best checkpoint. `outputs` and `model` belong to it."""
    best_value: float
    """The number of the best checkpoint by which checkpoints are compared."""
    outputs: Outputs
    """The predictions of the best checkpoint."""
    model: nn.Module
    """The model with the weights of the best checkpoint."""
    dataset: MMDataset
    positions: Sequence[int]
    """Positions in `dataset` of the items that were scored, in the order of the outputs."""
    frames: KeyFrames = field(default_factory=KeyFrames)
    """Key frames of clips, if the videos are available."""

    @property
    def columns(self) -> dict[str, Results]:
        """The columns of the table: `chance`, then the checkpoints in the order of scoring."""
        columns = {"chance": self.chance}
        for name, row in zip(self.names, self.rows, strict=True):
            columns[name] = row["metrics"]
        return columns

    def item(self, index: int) -> tuple[Any, Any]:
        """Returns the video key and the text key of one item of the outputs."""
        return self.dataset.meta[self.positions[index]]

    def test_items(self) -> list[tuple[Any, Any]]:
        """Returns the video key and the text key of every item, in the order of the outputs."""
        return [self.item(index) for index in range(len(self.positions))]


class Section(NamedTuple):
    """A section of a report."""

    title: str
    template: str
    """Name of a file in `templates/`."""
    data: Mapping[str, Any]
    """Variables of the template. Texts are escaped, and figures are inserted as they are."""


@singledispatch
def prediction_sections(outputs: Outputs, run: EvaluationRun) -> list[Section]:
    """Returns the sections that show predictions; an empty list for outputs of an unknown class.

    A function for another class of outputs is registered with `@prediction_sections.register`.
    """
    return []
