"""Loggers and progress lines."""

import logging
import os
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmpt.errors import LaunchError

T = TypeVar("T")

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
"""Format of a log line. It is the one of fairseq."""
INTERVAL_S = 5.0
"""Seconds between two progress lines."""
ON_SCREEN = {"screen": "line"}
"""`extra` of a message below WARNING that a training run also shows on the screen."""
IN_PLACE = {"screen": "status"}
"""`extra` of a message that replaces the one before it on the screen."""
ONLY_IN_LOG = {"screen": ""}
"""`extra` of a message at WARNING or above that a training run does not show on the screen."""


def get_logger(name: str) -> logging.Logger:
    """Returns the logger called `name`. Modules pass `__name__`."""
    return logging.getLogger(name)


def setup_logging() -> None:
    """Configures the root logger at level LOGLEVEL, which is INFO by default.

    For training processes, see `screen.py`.
    """
    logging.basicConfig(
        format=FORMAT,
        datefmt="%H:%M:%S",
        level=_read_level(),
    )
    # At INFO they log every request.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _read_level() -> str:
    """Returns the level LOGLEVEL, by default INFO.

    torch and fairseq read the variable, too, and accept neither an empty value nor lower case. It
    is changed for them.

    Raises:
        LaunchError: there is no such level.
    """
    level = os.environ.pop("LOGLEVEL", "").upper()
    if not level:
        return "INFO"
    levels = logging.getLevelNamesMapping()
    if level not in levels:
        raise LaunchError(
            f"The variable LOGLEVEL must be one of {', '.join(levels)}, but is {level}."
        )
    os.environ["LOGLEVEL"] = level
    return level


def format_seconds(seconds: float) -> str:
    """Returns a duration as text, for example 75 as `1:15` and 3700 as `1:01:40`."""
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes_left:02d}:{seconds_left:02d}"
    return f"{minutes}:{seconds_left:02d}"


def progress(
    items: Iterable[T],
    total: int,
    what: str,
    logger: logging.Logger,
    unit: int = 1,
) -> Iterator[T]:
    """Yields `items`, and logs the progress every `INTERVAL_S` seconds and at the end.

    A line gives the count, the rate and the estimated time left.

    Args:
        items: the items to iterate over.
        total: number of things in all items together.
        what: description of the things, such as "videos embedded".
        logger: the logger to write to.
        unit: number of things in an item, such as a batch size. The last item may have fewer.
    """
    begin = last = time.monotonic()
    done = 0
    for item in items:
        yield item
        done = min(done + unit, total)
        now = time.monotonic()
        if now - last >= INTERVAL_S and done < total:
            last = now
            rate = done / (now - begin)
            percent = 100 * done / total
            time_left = format_seconds((total - done) / rate)
            logger.info(
                f"{what}: {done} of {total} ({percent:.0f}%), {rate:.1f}/s, {time_left} left",
                extra=IN_PLACE,
            )
    elapsed_s = time.monotonic() - begin
    rate = done / max(elapsed_s, 1e-9)
    logger.info("%s: %d in %s (%.1f/s)", what, done, format_seconds(elapsed_s), rate)
