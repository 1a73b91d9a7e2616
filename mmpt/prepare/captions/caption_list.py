"""The timed captions of one video: their type, a check of their form, and a correction of times."""

from collections import Counter
from collections.abc import Mapping
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
    sizes = []
    for column in COLUMNS:
        found = value.get(column) if isinstance(value, dict) else None
        sizes.append(len(found) if isinstance(found, list) else None)
    if sizes[0] is None or len(set(sizes)) > 1:
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
    odd = next((time for time in times if type(time) not in (int, float, NoneType)), None)
    if odd is not None:
        raise DataError(f"{name}: times must be numbers (seconds), but one is {odd!r}.")
    try:
        times_2N = np.array(times, dtype=np.float64).reshape(2, -1)  # None becomes NaN
    except OverflowError:
        raise DataError(f"{name}: times must be seconds, but one is too large.") from None
    known_N = np.isfinite(times_2N).all(axis=0)
    start_N, end_N = times_2N[:, known_N]
    flaws = Counter(
        unsorted=int((start_N[1:] < start_N[:-1]).sum()),
        negative=int(((start_N < 0) | (end_N < 0)).sum()),
        reversed=int((end_N < start_N).sum()),
        untimed=int((~known_N).sum()),
    )
    if not flaws.total():
        return captions, flaws
    start_N = np.maximum(start_N, 0)
    end_N = np.maximum(end_N, start_N)
    order_N = np.argsort(start_N, kind="stable")
    positions = np.flatnonzero(known_N)[order_N]  # in the lists of `captions`
    corrected: CaptionList = {
        "start": start_N[order_N].tolist(),
        "end": end_N[order_N].tolist(),
        "text": [captions["text"][position] for position in positions],
    }
    return corrected, flaws


def describe_flaws(flaws: Mapping[str, int]) -> list[str]:
    """Returns a list of one text about the flaws that `clean_times` corrected, or of none."""
    counts = [f"{flaws[name]} {what}" for name, what in FLAWS.items() if flaws[name]]
    return [f"captions {', '.join(counts)}"] if counts else []


def warn_of_flaws(flaws: Mapping[str, int], where: str | Path) -> None:
    """Logs the flaws that `clean_times` corrected, if there are any.

    Args:
        where: the file or split, for the message.
    """
    for note in describe_flaws(flaws):
        logger.warning("%s: %s", where, note)
