"""Loggers and progress lines; everything a run says goes through here, rank 0 is filtered in one
place.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

FORMAT = "%(asctime)s | %(levelname)s | %(name)s | %(message)s"
"""Format of a log line, which is fairseq's."""
INTERVAL_S = 5.0
"""Seconds between two lines about a long loop."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger called `name` (use `__name__`)."""
    return logging.getLogger(name)


def setup_logging() -> None:
    """Configures the root logger for our own commands (fairseq configures it by itself)."""
    logging.basicConfig(
        format=FORMAT,
        datefmt="%H:%M:%S",
        level=logging.INFO,
    )
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else a line per request


def format_seconds(seconds: float) -> str:
    """Return `75` as `1:15` and `3700` as `1:01:40`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def progress(
    items: Iterable[T],
    total: int,
    what: str,
    logger: logging.Logger,
    unit: int = 1,
) -> Iterator[T]:
    """Yields `items`, logging count, rate and time left every `INTERVAL_S` seconds, and once at the
    end.

    Args:
        total: how many things there are in all.
        what: what is counted, as in "videos embedded".
        unit: how many things one item stands for (a batch size); the last one may stand for fewer.
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
            share, left = 100 * done / total, format_seconds((total - done) / rate)
            counts = f"{done} of {total} ({share:.0f}%), {rate:.1f}/s"
            logger.info("%s: %s, %s left", what, counts, left)
    took = time.monotonic() - begin
    logger.info("%s: %d in %s (%.1f/s)", what, done, format_seconds(took), done / max(took, 1e-9))
