"""The timed captions of one video as text, the check of their form, and the correction of times."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from mmpt.errors import DataError

COLUMNS = ("start", "end", "text")


class CaptionList(TypedDict):
    """The timed captions of one video: parallel lists, ordered by start once they are clean."""

    start: list[float]  # seconds
    end: list[float]  # seconds
    text: list[Any]  # str; None or NaN where the original has no text


@dataclass(frozen=True, kw_only=True)
class Flaws:
    """The number of captions with each kind of wrong time, all of which are corrected."""

    unsorted: int = 0
    """Started before the caption in front of them; all are sorted by start."""
    negative: int = 0
    """Had a time below 0; it is set to 0."""
    reversed: int = 0
    """Ended before they started; the end is set to the start."""
    untimed: int = 0
    """Had no finite start or end; they are dropped."""

    def __add__(self, other: Flaws) -> Flaws:
        counts = dataclasses.asdict(self)
        for name, count in dataclasses.asdict(other).items():
            counts[name] += count
        return Flaws(**counts)

    def __bool__(self) -> bool:
        return any(dataclasses.astuple(self))

    def describe(self) -> str:
        """Returns the counts and what was done, for a warning."""
        kinds = [
            (self.unsorted, "out of order (sorted)"),
            (self.negative, "before second 0 (clamped)"),
            (self.reversed, "ending before their start (clamped)"),
            (self.untimed, "without a time (dropped)"),
        ]
        return ", ".join(f"{count} {kind}" for count, kind in kinds if count)


NO_FLAWS = Flaws()


def as_captions(value: Any, name: str) -> CaptionList:
    """Returns `value` as captions. JSON text is parsed first: the released pickles hold such texts.

    Args:
        name: the file and video, for messages.
    Raises:
        DataError: not three lists of one length called start, end and text.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as err:
            raise DataError(f"{name}: captions must be JSON, but are not ({err}).") from None
    wanted = "captions must be three lists of one length, `start`, `end` and `text`"
    if not isinstance(value, dict):
        raise DataError(f"{name}: {wanted}, but are a {type(value).__name__}.")
    for column in COLUMNS:
        if not isinstance(value.get(column), list):
            found = f"a {type(value[column]).__name__}" if column in value else "missing"
            raise DataError(f"{name}: {wanted}, but `{column}` is {found}.")
    start, end, text = (value[column] for column in COLUMNS)
    if not len(start) == len(end) == len(text):
        raise DataError(
            f"{name}: {wanted}, but have {len(start)}, {len(end)} and {len(text)} entries."
        )
    return {"start": start, "end": end, "text": text}


def clean_times(captions: CaptionList, name: str) -> tuple[CaptionList, Flaws]:
    """Returns the captions sorted by start, with 0 <= start <= end, and the corrections made.

    Captions without flaws are returned as they are. Captions that overlap are kept: speech does.

    Raises:
        DataError: a time is no number.
    """
    times_2N = _times(captions, name)
    start_N, end_N = times_2N
    known_N = np.isfinite(times_2N).all(axis=0)
    steps_back = start_N[1:] < start_N[:-1]
    if known_N.all() and not ((end_N < start_N).any() or steps_back.any() or (start_N < 0).any()):
        return captions, NO_FLAWS
    start_N, end_N = start_N[known_N], end_N[known_N]
    flaws = Flaws(
        unsorted=int((start_N[1:] < start_N[:-1]).sum()),
        negative=int(((start_N < 0) | (end_N < 0)).sum()),
        reversed=int((end_N < start_N).sum()),
        untimed=int((~known_N).sum()),
    )
    start_N = np.maximum(start_N, 0)
    end_N = np.maximum(end_N, start_N)
    order_N = np.argsort(start_N, kind="stable")
    places = np.flatnonzero(known_N)[order_N]  # in the captions as they came
    corrected: CaptionList = {
        "start": start_N[order_N].tolist(),
        "end": end_N[order_N].tolist(),
        "text": [captions["text"][place] for place in places],
    }
    return corrected, flaws


def _times(captions: CaptionList, name: str) -> np.ndarray:
    """Returns starts and ends, [2, captions]; a missing time is NaN."""
    try:
        times_2N = np.array([captions["start"], captions["end"]])
        if times_2N.dtype.kind == "O":
            times_2N = times_2N.astype(np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        times_2N = np.zeros(0, dtype="U")
    if times_2N.dtype.kind not in "iuf" or times_2N.ndim != 2:
        times = captions["start"] + captions["end"]
        odd = [time for time in times if type(time) not in (int, float, type(None))]
        found = f"one is {odd[0]!r}" if odd else "one is too large"
        raise DataError(f"{name}: times must be numbers (seconds), but {found}.")
    return times_2N
