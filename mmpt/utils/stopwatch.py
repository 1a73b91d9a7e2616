"""Measures the time of the parts of a job."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """A stopwatch for the named parts of a job. `str` gives the times of all parts in one line."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Wall-clock seconds of each part, in the order in which the parts were first timed."""
        self._remarks: dict[str, str] = {}

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of the block to `part`, even if the block fails."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            earlier = self.seconds.get(part, 0.0)
            self.seconds[part] = earlier + time.perf_counter() - begin

    def remark(self, part: str, text: str) -> None:
        """Sets a text that follows the time of `part`, in parentheses."""
        self._remarks[part] = text

    @property
    def total(self) -> float:
        """Seconds of all parts together."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        parts = []
        for part, seconds in self.seconds.items():
            remark = f" ({self._remarks[part]})" if part in self._remarks else ""
            parts.append(f"{part} {seconds:.1f} s{remark}")
        return ", ".join(parts)
