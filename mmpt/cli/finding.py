"""The result of a check of `mmpt doctor`."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "missing", "optional"]
"""`missing`: training needs it. `optional`: absent, and not needed for training."""


@dataclass(frozen=True)
class Finding:
    """A result of a check."""

    name: str
    """Name of the package, limit or program."""
    state: State
    """Whether training can run with it."""
    found: str
    """Versions, sizes, or what is wrong."""
    remedy: str = ""
    """Advice, as a command or a sentence. Default: none."""
