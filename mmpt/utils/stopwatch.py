"""Seconds of the parts of a job, by name, for one line that says where the time went."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Wall-clock seconds of named parts, in the order in which they were first timed; a name may
    come several times.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.remarks: dict[str, str] = {}
        """What stands behind a part's time, in parentheses."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to `part`, also when the block fails."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        parts = []
        for part, seconds in self.seconds.items():
            remark = f" ({self.remarks[part]})" if part in self.remarks else ""
            parts.append(f"{part} {seconds:.1f} s{remark}")
        return ", ".join(parts)
