"""The result of a check of `mmpt doctor`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "missing", "optional"]
"""`missing`: a training needs it. `optional`: absent, and not needed for a training."""


@dataclass(frozen=True)
class Finding:
    """What a check has found."""

    name: str
    """What was checked."""
    state: State
    """Whether a training can run with it."""
    found: str
    """Versions, sizes, or what is wrong."""
    remedy: str = ""
    """What to do. Empty if there is nothing to do."""
