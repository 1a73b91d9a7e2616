"""The settings of the demo corpus, with their bounds and the help texts of the command line."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from mmpt.errors import UserError


def _setting(default: float, low: float, high: float, text: str) -> Any:
    """Returns a dataclass field with bounds (inclusive) and a help text as metadata."""
    return dataclasses.field(
        default=default, metadata={"low": low, "high": high, "help": text}
    )


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """The settings of a corpus.

    Strengths are lengths of vectors; the prototype of a step has length 1. Shares are fractions.
    With the default noise of the narration, about 30 % of the captions can be aligned with the
    video and 15 % are spoken while their step is shown, as in a hand-labelled sample of HowTo100M
    (Han et al., arXiv 2204.02968).

    Raises:
        UserError: values are out of bounds. The message names all of them.
    """

    seed: int = _setting(
        default=0,
        low=0,
        high=2**63 - 1,
        text="Seed of all random choices. Another seed gives other tasks, videos and sentences.",
    )
    num_videos: int = _setting(
        default=400, low=1, high=1_000_000, text="Number of training videos."
    )
    num_val: int = _setting(
        default=256, low=1, high=100_000, text="Number of validation videos."
    )
    num_tasks: int = _setting(
        default=20,
        low=1,
        high=60,
        text="Number of tasks, from 1 to 60. A video shows the steps of one task. Related tasks "
        "share half of their steps, in another order.",
    )
    shard_size: int = _setting(
        default=150,
        low=1,
        high=1_000_000,
        text="Number of videos in a shard. The last shard of a split may have fewer.",
    )
    misalign: float = _setting(
        default=0.5,
        low=0.0,
        high=1.0,
        text="Fraction of the narrated steps, from 0 to 1, that the speaker describes before or "
        "after they are shown.",
    )
    max_offset: float = _setting(
        default=20.0,
        low=4.0,
        high=60.0,
        text="Largest number of seconds, from 4 to 60, by which such a description comes too early "
        "or too late. The smallest is 4 seconds.",
    )
    irrelevant: float = _setting(
        default=0.7,
        low=0.0,
        high=0.95,
        text="Fraction of the captions, from 0 to 0.95, that are not about a step of the video.",
    )
    omit: float = _setting(
        default=0.6,
        low=0.0,
        high=0.95,
        text="Fraction of the shown steps, from 0 to 0.95, that no caption describes.",
    )
    skip: float = _setting(
        default=0.05,
        low=0.0,
        high=0.8,
        text="Fraction of the steps of a task, from 0 to 0.8, that a video does not show.",
    )
    repeat: float = _setting(
        default=0.03,
        low=0.0,
        high=0.5,
        text="Fraction of the shown steps, from 0 to 0.5, that are shown again after the next "
        "step.",
    )
    reorder: float = _setting(
        default=0.0,
        low=0.0,
        high=1.0,
        text="Fraction of the videos, from 0 to 1, that show their steps in a random order.",
    )
    vague: float = _setting(
        default=0.0,
        low=0.0,
        high=1.0,
        text="Fraction of the captions about a step, from 0 to 1, that contain no word of the "
        "step. The same few sentences are said in all videos.",
    )
    background: float = _setting(
        default=0.3,
        low=0.0,
        high=0.6,
        text="Fraction of the length of a video, from 0 to 0.6, in which no step is shown.",
    )
    kind_strength: float = _setting(
        default=1.0,
        low=0.0,
        high=5.0,
        text="Weight of the kind of an object, such as its colour or size, in the features of a "
        "step, from 0 to 5. The weight of a verb or an object is 1.",
    )
    noise: float = _setting(
        default=1.0,
        low=0.0,
        high=20.0,
        text="Length of the random vector that is added to each second, from 0 to 20. The feature "
        "vector of a step has length 1.",
    )
    variation: float = _setting(
        default=0.7,
        low=0.0,
        high=20.0,
        text="Length of the random vector that is added to all seconds of a shown step, from 0 to "
        "20. A step therefore looks different each time it is shown.",
    )
    style: float = _setting(
        default=0.5,
        low=0.0,
        high=20.0,
        text="Length of the random vector that is added to all seconds of a video, from 0 to 20. "
        "A step therefore looks different in each video.",
    )

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            low = field.metadata["low"]
            high = field.metadata["high"]
            if not low <= value <= high:
                flag = "--" + field.name.replace("_", "-")
                problems.append(
                    f"`{flag}` must be from {low} to {high}, but is {value}."
                )
        if problems:
            raise UserError("\n".join(problems))
