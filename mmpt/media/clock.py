"""Corrects the timestamps of video files whose clock restarts or jumps.

A frame is expected at the time at which the previous one ends. If its timestamp differs, there are
five cases:

- Gap: the timestamp is later by up to `max_gap_s`. It is correct, and the previous frame is shown
  longer.
- Overlap: the timestamp is earlier by at most 10 s and at most half of the segment so far. A
  stream that was resumed repeats frames in this way. The timestamp is correct, and the frame rate
  filter drops frames until the clock is back where it was.
- Outlier: the timestamp is wrong. Either the next timestamp continues the clock as it was before
  this one, or it does not follow this one: it is equal, earlier or, if this one would be a jump,
  much later. The frame is shown when it is expected. Runs of equal timestamps are outliers, and so
  are most timestamps in a run of random ones.
- Jump: everything else. Files were concatenated, or a recorder was restarted. A new segment begins:
  the frame is shown when it is expected, and all later timestamps are shifted by the same amount.
  (A 33-bit clock that restarts below the file's first time seems to jump 26.5 hours ahead, because
  FFmpeg assumes that it wrapped around.)
- Return: the timestamp is the one that the clock before the last jump expects, as after an inserted
  advertisement or a damaged run of timestamps. The file continues with that clock. A damaged clock
  may have run at another speed. Therefore the old clock is also advanced by the durations of the
  frames since the jump, and a timestamp may match either.

Looking one frame ahead does not decide every case. Two or more wrong timestamps that increase
within `max_gap_s` of the clock are taken for a gap. A gap of over a second is lost if the segment
before or after it has a single frame.

FFmpeg's command treats every step of more than 0.1 s back or 10 s ahead as a jump. Here, overlaps
and long gaps keep the times that captions refer to.
"""

import math
from fractions import Fraction

MAX_OVERLAP_S = 10
# A timestamp continues the clock if it is at most this much
_EARLY_S = Fraction(1, 10)  # earlier than the previous frame,
_LATE_S = 1  # or later than expected.


class Clock:
    """Converts the timestamps of successive frames into times from the file's start.

    Args:
        start: the file's first timestamp, in units of `time_base`.
        time_base: length of a unit in seconds.
        max_gap_s: longest gap in seconds. A longer one is a jump.
    """

    def __init__(self, start: int, time_base: Fraction, *, max_gap_s: int):
        self.jumps_s: list[float] = []
        """Times at which the clock jumps or returns, in seconds from the start."""
        self.is_too_far = False
        """Whether the clock has jumped ahead by more than `max_gap_s` before the last frame."""
        self._time_base = time_base
        self._early = int(_EARLY_S / time_base)
        self._late = int(_LATE_S / time_base)
        self._max_overlap = int(MAX_OVERLAP_S / time_base)
        self._max_gap = int(max_gap_s / time_base)
        self._offset = -start  # added to the timestamps of this segment
        self._old_offset = self._offset  # offset of the last segment of over a second
        # End of that segment, plus the durations of the frames since then.
        self._old_clock = 0
        self._segment_start = -math.inf  # no frame yet
        self._last = 0  # time of the previous frame
        self._expected = 0  # end of the previous frame

    def place(self, timestamp: int | None, duration: int, following: int | None) -> int:
        """Returns the time at which a frame is shown, in units of `time_base`.

        Args:
            timestamp: the frame's timestamp. A frame without one (None) is shown when it is
                expected.
            duration: how long the frame is shown.
            following: the next frame's timestamp; None if it has none, or for the last frame.
        """
        if timestamp is None:
            time = self._expected
        else:
            time = self._correct(timestamp, duration, following)
        if self._segment_start == -math.inf:
            self._segment_start = time
        self._last = time
        self._expected = time + duration
        self._old_clock += duration
        return time

    def _correct(self, timestamp: int, duration: int, following: int | None) -> int:
        """Returns the time of a frame with a timestamp. Decides between the cases of this file."""
        time = timestamp + self._offset
        if self._is_near(time, self._late):
            return time
        # The next timestamp follows this one if it is later, but not much. Without a next
        # timestamp, the clock is assumed to continue.
        step = duration
        if following is not None:
            step = following - timestamp
        is_followed = 0 < step <= duration + self._late
        # Outlier: the next timestamp is not later, or is where the clock was.
        if step <= 0:
            return self._expected
        next_time = time + step
        if not is_followed and self._is_near(next_time, self._late):
            return self._expected
        # Return to the clock before the last jump.
        old_time = timestamp + self._old_offset
        if self._old_offset != self._offset and self._matches_old_clock(old_time):
            return self._jump(timestamp, old_time)
        # Gap or overlap.
        segment_length = self._expected - self._segment_start
        max_overlap = min(self._max_overlap, segment_length / 2)
        earliest = self._expected - max_overlap
        latest = self._expected + self._max_gap
        if earliest <= time <= latest:
            return time
        # Outlier: this would be a jump, but the next timestamp does not follow it.
        if not is_followed:
            return self._expected
        # Jump. A single frame at the end may be far ahead.
        if time > self._expected and following is not None:
            self.is_too_far = True
        return self._jump(timestamp, self._expected)

    def _is_near(self, time: int, late: int) -> bool:
        """Returns whether a time is where the clock was, or at most `late` later."""
        earliest = self._last - self._early
        latest = self._expected + late
        return earliest <= time <= latest

    def _matches_old_clock(self, old_time: int) -> bool:
        """Returns whether the clock before the last jump expects a frame at `old_time`.

        It may have stopped at the jump, or have continued for as long as the frames since then.
        """
        if self._is_near(old_time, self._early):
            return True
        return abs(old_time - self._old_clock) <= self._early

    def _jump(self, timestamp: int, time: int) -> int:
        """Starts a segment whose first frame is shown at `time`. Returns `time`."""
        jump_s = self._expected * self._time_base
        self.jumps_s.append(float(jump_s))
        # A segment of up to a second is not a clock that the file may return to.
        if self._expected - self._segment_start > self._late:
            self._old_offset = self._offset
            self._old_clock = self._expected
        self._offset = time - timestamp
        self._segment_start = time
        return time
