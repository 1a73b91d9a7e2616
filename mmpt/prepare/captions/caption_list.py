"""The timed captions of one video: their type, a check of their form, and a correction of times."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, TypedDict

import numpy as np

from mmpt.errors import DataError
from mmpt.utils.io import parse_json
from mmpt.utils.log import get_logger

logger = get_logger(__name__)

COLUMNS = ("start", "end", "text")
FLAWS = {
    "unsorted": "out of order (sorted)",
    "negative": "before second 0 (clamped)",
    "reversed": "ending before their start (clamped)",
    "untimed": "without a time (dropped)",
}
"""Kind of wrong time -> description, and what `clean_times` does about it."""


class CaptionList(TypedDict):
    """The timed captions of one video, as parallel lists. Clean captions are ordered by start."""

    start: list[float]  # seconds
    end: list[float]  # seconds
    text: list[Any]  # str; None or NaN where the original has no text


def from_rows(rows: Iterable[tuple[float, float, Any]]) -> CaptionList:
    """Returns rows (start, end, text) as captions."""
    captions: CaptionList = {"start": [], "end": [], "text": []}
    for start, end, text in rows:
        captions["start"].append(start)
        captions["end"].append(end)
        captions["text"].append(text)
    return captions


def iter_rows(captions: CaptionList) -> Iterator[tuple[float, float, Any]]:
    """Returns an iterator over the rows (start, end, text) of captions."""
    return zip(captions["start"], captions["end"], captions["text"], strict=True)


def as_captions(value: Any, name: str) -> CaptionList:
    """Returns `value` as captions, after checking its form.

    Args:
        value: a dict of three lists, or its JSON text, as in the released pickles.
        name: the file and video, for messages.
    Raises:
        DataError: there are not three lists `start`, `end` and `text` of the same length.
    """
    if isinstance(value, str):
        value = parse_json(value, name)
    if not isinstance(value, dict):
        value = {}
    sizes = []
    for column in COLUMNS:
        found = value.get(column)
        sizes.append(len(found) if isinstance(found, list) else None)
    if None in sizes or len(set(sizes)) > 1:
        raise DataError(
            f"{name}: captions must be three lists of one length, `start`, `end` and `text`, but "
            f"their lengths are {sizes} (None: no list)."
        )
    return {"start": value["start"], "end": value["end"], "text": value["text"]}


def clean_times(captions: CaptionList, name: str) -> tuple[CaptionList, Counter[str]]:
    """Returns the captions sorted by start, with 0 <= start <= end, and the number of each flaw.

    Captions without flaws are returned as they are. Overlapping captions are not a flaw, because
    speakers overlap.

    Args:
        name: the file and video, for messages.
    Raises:
        DataError: a time is not a number.
    """
    times = captions["start"] + captions["end"]
    for time in times:
        if type(time) not in (int, float, NoneType):
            raise DataError(
                f"{name}: times must be numbers (seconds), but one is {time!r}."
            )
    try:
        times_2N = np.array(times, dtype=np.float64).reshape(2, -1)  # None becomes NaN
    except OverflowError:
        raise DataError(
            f"{name}: times must be seconds, but one is too large."
        ) from None

    # Count the flaws. `known_N` covers all captions, the other arrays those with known times.
    known_N = np.isfinite(times_2N).all(axis=0)
    start_N, end_N = times_2N[:, known_N]
    is_earlier = start_N[1:] < start_N[:-1]
    is_negative_N = (start_N < 0) | (end_N < 0)
    is_reversed_N = end_N < start_N
    flaws = Counter(
        unsorted=int(is_earlier.sum()),
        negative=int(is_negative_N.sum()),
        reversed=int(is_reversed_N.sum()),
        untimed=int((~known_N).sum()),
    )
    if not flaws.total():
        return captions, flaws

    # Clamp the times, and sort the captions.
    start_N = np.maximum(start_N, 0)
    end_N = np.maximum(end_N, start_N)
    order_N = np.argsort(start_N, kind="stable")
    known_positions = np.flatnonzero(known_N)
    positions = known_positions[order_N]  # in the lists of `captions`
    corrected: CaptionList = {
        "start": start_N[order_N].tolist(),
        "end": end_N[order_N].tolist(),
        "text": [captions["text"][position] for position in positions],
    }
    return corrected, flaws


def describe_flaws(flaws: Mapping[str, int]) -> str:
    """Returns a text about the flaws that `clean_times` corrected; empty if there are none."""
    counts = []
    for kind, what in FLAWS.items():
        if flaws[kind]:
            counts.append(f"{flaws[kind]} {what}")
    if not counts:
        return ""
    listed = ", ".join(counts)
    return f"captions {listed}"


def warn_of_flaws(flaws: Mapping[str, int], where: str | Path) -> None:
    """Logs the flaws that `clean_times` corrected, if there are any.

    Args:
        where: the file or split, for the message.
    """
    note = describe_flaws(flaws)
    if note:
        logger.warning("%s: %s", where, note)
