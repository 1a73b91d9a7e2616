"""`pictures`: what a report shows of predictions, by the kind of outputs; another kind registers a function of its own.

@pictures.register
def _(outputs: MyOutputs, run: Run) -> list[Section]: ...
"""

from __future__ import annotations

from functools import singledispatch

from mmpt.evaluators import Outputs
from mmpt.reporting.markup import Section
from mmpt.reporting.run import Run


@singledispatch
def pictures(outputs: Outputs, run: Run) -> list[Section]:
    """Return the sections about what was predicted; none for outputs of an unknown kind."""
    return []
