"""The settings of the demo corpus, with their bounds and the help texts of the command line."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mmpt.errors import UserError


def _setting(default: float, low: float, high: float, text: str) -> Any:
    """Returns a dataclass field with bounds and a help text as metadata."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "help": text})


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """The settings of a corpus.

    Strengths are lengths of vectors; the prototype of a step has length 1. Shares are fractions.

    Raises:
        UserError: values are out of bounds. The message names all of them.
    """

    seed: int = _setting(0, 0, 2**63 - 1, "another seed gives other tasks, videos and sentences")
    num_videos: int = _setting(400, 1, 1_000_000, "training videos")
    num_val: int = _setting(256, 1, 100_000, "validation videos")
    num_tasks: int = _setting(
        20, 1, 60, "tasks; neighbouring tasks of a craft share steps in another order"
    )
    shard_size: int = _setting(150, 1, 1_000_000, "videos per shard")
    misalign: float = _setting(
        0.4, 0.0, 1.0, "share of performed steps that are narrated early or late"
    )
    max_offset: float = _setting(
        12.0, 4.0, 60.0, "how early or late at most, in seconds (at least 4)"
    )
    irrelevant: float = _setting(0.35, 0.0, 0.95, "share of captions that chat about other things")
    omit: float = _setting(0.15, 0.0, 0.95, "share of performed steps that nobody speaks about")
    skip: float = _setting(0.05, 0.0, 0.8, "share of a task's steps that a video leaves out")
    repeat: float = _setting(
        0.03, 0.0, 0.5, "share of performed steps that are done again after the next one"
    )
    background: float = _setting(0.3, 0.0, 0.6, "share of a video in which no step is performed")
    kind_strength: float = _setting(
        1.0, 0.0, 5.0, "how much a step looks like its kind (colour, size)"
    )
    noise: float = _setting(1.0, 0.0, 20.0, "feature noise, new every second")
    variation: float = _setting(
        0.7, 0.0, 20.0, "how differently the same step looks each time it is performed"
    )
    style: float = _setting(0.5, 0.0, 20.0, "how differently the same step looks in each video")

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low, high, text = field.metadata.values()
            if not low <= value <= high:
                flag = "--" + field.name.replace("_", "-")
                problems.append(f"`{flag}` ({text}) must be from {low} to {high}, but is {value}.")
        if problems:
            raise UserError("\n".join(problems))
