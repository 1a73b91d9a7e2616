"""What a report is about, and its parts: a `Run`, its `Section`s, and `pictures` of predictions."""

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
class Run:
    """One scoring of one or several checkpoints on a test set."""

    config: RunConfig
    rows: Sequence[dict[str, Any]]
    """Of results.json, one per checkpoint."""
    names: Sequence[str]
    """Of the checkpoints, as in tables."""
    chance: Results
    best: int
    """Which of the rows is best; the outputs and the model are this one's."""
    best_value: float
    """The number that checkpoints are compared by."""
    outputs: Outputs
    model: nn.Module
    dataset: MMDataset
    positions: Sequence[int]
    """The items of `dataset` that were scored."""
    frames: KeyFrames = field(default_factory=KeyFrames)
    """Pictures of clips, where the videos are at hand."""

    @property
    def columns(self) -> dict[str, Results]:
        """`chance` and a column per checkpoint, in the order of scoring."""
        columns = {"chance": self.chance}
        for name, row in zip(self.names, self.rows, strict=True):
            columns[name] = row["metrics"]
        return columns

    def item(self, place: int) -> tuple[Any, Any]:
        """Returns video key and text key of one item of the outputs."""
        return self.dataset.meta[self.positions[place]]

    def test_items(self) -> list[tuple[Any, Any]]:
        """Returns video key and text key of every item scored, in the order of the outputs."""
        return [self.item(place) for place in range(len(self.positions))]


class Section(NamedTuple):
    """A part of a report."""

    title: str
    template: str
    """Name of a file in `templates/`."""
    data: Mapping[str, Any]
    """The template's variables; texts are escaped, figures are inserted as they are."""


@singledispatch
def pictures(outputs: Outputs, run: Run) -> list[Section]:
    """Returns the sections about predictions; none for outputs of an unknown kind.

    Another kind of outputs registers a function of its own with `@pictures.register`.
    """
    return []
