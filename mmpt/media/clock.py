"""The times at which a file's pictures are shown, also if the file's clock starts again or jumps.

A picture is due when the previous one ends. The time that the file gives it can be different:
- A gap: the time is up to `max_gap_s` later. It is right, and the previous picture is shown longer.
- An overlap: the time is earlier, by at most 10 s and at most half of the part so far, as in a
  stream that was resumed and repeats pictures. The time is right, and the frame rate filter drops
  pictures until the clock is back where it was.
- A stray: a wrong time. The next picture's time is where the clock was, or it does not follow this
  one: it is the same, earlier or (where this time would be a jump) much later. The picture is shown
  when it is due. Runs of equal times, and most times in a run of random ones, are strays.
- A jump: everything else. Files were joined, or a recorder was restarted. The picture is shown when
  it is due, and all later times move by the same amount. (A clock of 33 bits that starts again
  below the file's first time seems to jump 26.5 hours ahead, because FFmpeg assumes that it passed
  zero.)
- A return: the time is due by the clock before the last jump, as after an inserted advertisement or
  a damaged run of times. The file continues with that clock. A damaged clock may have run at
  another speed, so that clock is also advanced by the durations of the pictures since the jump.

One picture ahead is not enough to decide every case. Two or more wrong times that increase within
`max_gap_s` of the clock are read as a gap, and a gap of over a second next to a part of one picture
is lost.

FFmpeg's command treats each step of more than 0.1 s back or 10 s ahead as a jump. Here overlaps and
long gaps keep the times that captions refer to.
"""

import math
from fractions import Fraction

MAX_OVERLAP_S = 10
# A time is where the clock was if it is no more than this
_EARLY_S = Fraction(1, 10)  # earlier than the previous picture's,
_LATE_S = 1  # or later than due.


class Clock:
    """Turns the times that a file gives its successive pictures into times from its start.

    Args:
        start: the file's first time, in units of `time_base`.
        time_base: seconds of a unit.
        max_gap_s: the longest gap; a longer one is a jump.
    """

    def __init__(self, start: int, time_base: Fraction, *, max_gap_s: int):
        self.jumps_s: list[float] = []
        """Where the clock jumps or returns, in seconds from the start."""
        self.is_ahead = False
        """A jump went ahead by more than `max_gap_s`, and more pictures follow."""
        self._time_base = time_base
        self._early, self._late, self._max_overlap, self._max_gap = (
            int(seconds / time_base) for seconds in (_EARLY_S, _LATE_S, MAX_OVERLAP_S, max_gap_s)
        )
        self._offset = -start
        self._old_offset = self._offset  # before the last jump from a part of over a second
        self._counted = 0  # where the clock before that jump is, by the pictures' durations
        self._part_start = -math.inf  # no picture yet
        self._last = self._due = 0

    def place(self, time: int | None, duration: int, following: int | None) -> int:
        """Returns the time at which a picture is shown, in units of `time_base`.

        Args:
            time: the picture's time; None: the file gives none, so it is shown when it is due.
            duration: how long it is shown.
            following: the next picture's time; None: the file gives none, or there is no picture.
        """
        shown = self._due if time is None else self._find_place(time, duration, following)
        if self._part_start == -math.inf:
            self._part_start = shown
        self._last, self._due = shown, shown + duration
        self._counted += duration
        return shown

    def _find_place(self, time: int, duration: int, following: int | None) -> int:
        """Returns the time at which a picture with a time of its own is shown."""
        shown = time + self._offset
        if self._is_near(shown, self._late):
            return shown
        # Without a next picture, the clock is assumed to continue.
        step = duration if following is None else following - time
        continues = 0 < step <= duration + self._late
        if step <= 0 or (not continues and self._is_near(shown + step, self._late)):
            return self._due  # a stray
        returned = time + self._old_offset
        if self._old_offset != self._offset and (
            self._is_near(returned, self._early) or abs(returned - self._counted) <= self._early
        ):
            return self._jump(time, returned)
        overlap = min(self._max_overlap, (self._due - self._part_start) / 2)
        if self._due - overlap <= shown <= self._due + self._max_gap:
            return shown
        if not continues:
            return self._due  # a stray
        self.is_ahead |= shown > self._due and following is not None
        return self._jump(time, self._due)

    def _is_near(self, shown: int, late: int) -> bool:
        """Returns whether a time is where the clock was, or at most `late` later."""
        return self._last - self._early <= shown <= self._due + late

    def _jump(self, time: int, shown: int) -> int:
        """Starts a part: moves `time` to `shown` and later times by as much. Returns `shown`."""
        self.jumps_s.append(float(self._due * self._time_base))
        if self._due - self._part_start > self._late:
            self._old_offset, self._counted = self._offset, self._due
        self._offset = shown - time
        self._part_start = shown
        return shown
