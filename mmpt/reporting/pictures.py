"""`pictures`: sections about predictions, by the kind of outputs.

Another kind of outputs registers a function of its own:

@pictures.register
def _(outputs: MyOutputs, run: Run) -> list[Section]: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any, NamedTuple

from mmpt.evaluators import Outputs
from mmpt.reporting.run import Run


class Section(NamedTuple):
    """A part of a report."""

    title: str
    template: str
    """Name of a file in `templates/`."""
    data: Mapping[str, Any]
    """The template's variables; texts are escaped, figures are inserted as they are."""


@singledispatch
def pictures(outputs: Outputs, run: Run) -> list[Section]:
    """Returns the sections about predictions; none for outputs of an unknown kind."""
    return []
