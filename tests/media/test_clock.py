"""Tests of files whose clock restarts or jumps: the time of every frame, and the notes.

Frames are numbered through all segments of a file. Each group of ten frames has its own grey level.
"""

from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from mmpt.media.clock import Clock
from mmpt.media.video_reader import VideoError, VideoFile
from tests.support.videos import TIME_BASE, Clip, regular_times, truncate, write_video

GROUP = 10  # frames with the same grey level
SEGMENT = 60  # frames of a segment: 2 s
HOUR = 3600
# The 33-bit clock of MPEG-TS, in units of 1/90,000 s, wraps here.
WRAP_S = Fraction(2**33, 90_000)


def write_segment(
    path: Path,
    start_s: Fraction | float,
    first: int,
    *,
    count: int = SEGMENT,
    sound_s: float = 0,
) -> bytes:
    """Encodes the frames `first`, `first + 1` ... with timestamps from `start_s` on.

    Args:
        sound_s: if positive, there is audio, and it begins this many seconds earlier.
    """
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = TIME_BASE
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 15, 2
        sound = file.add_stream("mp2", rate=48_000) if sound_s else None
        for number in range(count):
            grey = 20 + 8 * ((first + number) // GROUP)
            pixels = np.full((64, 64, 3), grey, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                format="yuv420p"
            )
            time_s = Fraction(start_s) + Fraction(number, 30)
            frame.pts = round(time_s / TIME_BASE)
            frame.time_base = TIME_BASE
            frame.duration = 3000
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            samples = np.zeros((1, 2 * 1152), np.int16)
            silence = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            silence.sample_rate = 48_000
            silence.time_base = Fraction(1, 48_000)
            num_samples = round((sound_s + 2) * 48_000)
            first_pts = round((start_s - sound_s) * 48_000)
            for begin in range(0, num_samples, 1152):
                silence.pts = first_pts + begin
                file.mux(sound.encode(silence))
            file.mux(sound.encode(None))
    return path.read_bytes()


def groups(path: Path) -> tuple[list[int], list[str]]:
    """Reads a video. Returns the group of each output frame (30 per second), and the notes."""
    video = VideoFile(path)
    found = []
    for frame in video.frames():
        grey = frame[112, 112].mean()
        found.append(round((grey - 20) / 8))
    return found, video.notes


def groups_of(*numbers: range | list[int]) -> list[int]:
    return [number // GROUP for number in chain(*numbers)]


def note(*places: str) -> list[str]:
    """Returns the note about jumps at these times, in seconds."""
    times = "1 time" if len(places) == 1 else f"{len(places)} times"
    return [
        f"its clock jumps {times} (at {', '.join(places)} s); the frames after a jump were moved "
        "to follow the frames before it"
    ]


FIRST = range(SEGMENT)
SECOND = range(SEGMENT, 2 * SEGMENT)
THIRD = range(2 * SEGMENT, 3 * SEGMENT)

# Name -> (first timestamp of every segment, frames that are shown, notes).
CONCATENATED = {
    "starts_again.ts": ([10, 10], [FIRST, SECOND], note("2.0")),
    "starts_twice_again.ts": ([10, 10, 10], [FIRST, SECOND, THIRD], note("2.0", "4.0")),
    "starts_again.mkv": ([0, 0], [FIRST, SECOND], note("2.0")),
    # FFmpeg assumes that the clock wrapped around, so the second segment seems 26.5 hours later.
    "starts_again_earlier.ts": ([HOUR, 1], [FIRST, SECOND], note("2.0")),
    "hours_ahead.ts": ([10, 10 * HOUR], [FIRST, SECOND], note("2.0")),
    "gap.ts": ([10, 15], [FIRST, [59] * 90, SECOND], []),
    "gap.mkv": ([0, 5], [FIRST, [59] * 90, SECOND], []),
    "again_and_gap.ts": ([10, 10, 15], [FIRST, SECOND, [119] * 90, THIRD], note("2.0")),
    # The frame rate filter has not returned frame 59 yet when the second segment begins.
    "overlap.ts": ([10, 11.5], [FIRST[:59], SECOND[14:]], []),
    "late.ts": ([10 * HOUR], [FIRST], []),
    "late.mkv": ([10 * HOUR], [FIRST], []),
    "late.mp4": ([10 * HOUR], [FIRST], []),
    "passes_zero.ts": ([WRAP_S - 1], [FIRST], []),
    "negative.mkv": ([Fraction(-1, 2)], [FIRST], []),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONCATENATED)
def test_concatenated_segments_follow_each_other(tmp_path, name):
    starts, shown, notes = CONCATENATED[name]
    path = tmp_path / name
    content = b""
    for number, start in enumerate(starts):
        content += write_segment(path, start, SEGMENT * number)
    path.write_bytes(content)
    assert groups(path) == (groups_of(*shown), notes)


def test_audio_that_begins_earlier_delays_only_the_first_segment(tmp_path):
    path = tmp_path / "sound.ts"
    first = write_segment(path, 10, 0, sound_s=0.5)
    second = write_segment(path, 10, SEGMENT, sound_s=0.5)
    path.write_bytes(first + second)
    half_a_second = [0] * 15
    shown, notes = groups(path)
    assert shown == groups_of(half_a_second, FIRST, SECOND)
    assert notes == note("2.5")


def test_a_jump_ahead_is_an_error_in_formats_with_one_clock(tmp_path):
    path = tmp_path / "far.mkv"
    first = write_segment(path, 0, 0)
    second = write_segment(path, 2 * HOUR, 0)
    path.write_bytes(first + second)
    with pytest.raises(
        VideoError, match="timestamps are broken: they jump by more than 3600 s"
    ):
        groups(path)


def test_a_last_frame_far_ahead_follows_the_frame_before_it(tmp_path):
    path = tmp_path / "last.mkv"
    first = write_segment(path, 0, 0)
    last = write_segment(path, 2 * HOUR, SEGMENT, count=1)
    path.write_bytes(first + last)
    shown, notes = groups(path)
    assert shown == groups_of(FIRST, [SEGMENT])
    assert notes == note("2.0")


def test_the_note_on_a_truncated_file_does_not_count_the_start_of_its_clock(tmp_path):
    times = [10 * HOUR + time for time in regular_times(4)]
    whole = write_video(tmp_path / "whole.mkv", times, Clip(width=64, height=64))
    part = truncate(whole, tmp_path / "part.mkv", 0.5)
    shown, (reason,) = groups(part)
    assert 30 < len(shown) < 90
    assert "but the file declares 4.0 s" in reason


# ---- the rules, in tenths of a second


def placed(times: list[int | None], start: int = 0) -> tuple[list[int], list[float]]:
    """Returns the times of frames with a duration of 0.1 s, and the times of jumps."""
    clock = Clock(start, Fraction(1, 10), max_gap_s=300)
    shown = []
    for time, following in pairwise([*times, None]):
        shown.append(clock.place(time, 1, following))
    return shown, clock.jumps_s


A = list(range(100))
B = list(range(100, 200))


@pytest.mark.parametrize(
    ("times", "shown", "jumps_s"),
    [
        (A + A + A, range(300), [10, 20]),
        (A + list(range(5000, 5100)), range(200), [10]),  # 490 s ahead
        # A gap of 290 s.
        (A + list(range(3000, 3100)), A + list(range(3000, 3100)), []),
        # Half of the segment overlaps.
        (A + list(range(50, 150)), A + list(range(50, 150)), []),
        (A + list(range(49, 149)), range(200), [10]),
        # More than 10 s is not an overlap.
        (A + B + list(range(99, 199)), range(300), [20]),
        # One frame with a wrong timestamp, a run of them, and an inserted segment.
        ([*A, 3, *B[1:]], range(200), []),
        ([*A, 9000, *B[1:]], range(200), []),
        (A + list(range(20)) + B[20:], range(200), [10, 12]),
        (A + list(range(9000, 9020)) + A, range(220), [10, 12]),
        # Runs of equal timestamps: the first timestamp, one far ahead, and one after a gap.
        ([*A, 0, 0, *B[2:]], range(200), []),
        (A + [0] * 60 + B[60:], range(200), []),
        (A + [9000] * 20 + B[20:], range(200), []),
        (A + [250] * 20 + B[20:], range(200), []),
        # Unrelated timestamps. 8 timestamps at half the speed of the frames. 6 at twice the speed.
        ([*A, 9000, 20, 7000, 7, 9900, 8000, 3, 40, *B[8:]], range(200), []),
        (
            [*A, *[0, 0, 1, 1, 2, 2, 3, 3], *B[8:]],
            [*A, *[100, 101, 102, 102, 103, 103, 104, 104], *B[8:]],
            [10.1, 10.5],
        ),
        (
            [*A, *[0, 2, 4, 6, 8, 10], *B[6:]],
            [*A, *[100, 102, 104, 106, 108, 110], *B[6:]],
            [10, 11.1],
        ),
        # A gap after the first two frames of a segment, and before its last two.
        ([*A, 0, 1, 40, 41], [*A, 100, 101, 140, 141], [10]),
        ([*A, 140, 141, 0, 1], [*A, 140, 141, 142, 143], [14.2]),
        # A short overlap, and a last frame far ahead.
        (A + list(range(97, 197)), A + list(range(97, 197)), []),
        ([*A, 9000], range(101), [10]),
        # Without timestamps, out of order, and with a variable frame rate.
        (A + [None] * 5 + B[5:], range(200), []),
        (A + [None] * 60 + B[60:], range(200), []),
        ([None, 1, 2, None, 4], range(5), []),
        ([0, 3, 2, 5, 4], [0, 3, 2, 5, 4], []),
        ([0, 5, 6, 40, 41, 300], [0, 5, 6, 40, 41, 300], []),
    ],
)
def test_timestamps_are_corrected_by_the_rules(times, shown, jumps_s):
    assert placed(times) == (list(shown), jumps_s)
    late = [None if time is None else time + 36_000 for time in times]
    if times[0] is not None:
        assert placed(late, start=36_000) == (list(shown), jumps_s)
