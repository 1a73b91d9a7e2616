"""Tests of reading real video files.

Frames must have the same bits as with FFmpeg's fps, scale, crop and RGB24 filters, and must show
what was drawn at their times.
"""

import random
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest

from mmpt.media.frame_graph import S3D_SAMPLING, Sampling, scaled_size
from mmpt.media.video_reader import VideoError, VideoFile
from tests.support.videos import (
    COLOURS,
    NTSC,
    WHITE,
    Clip,
    draw,
    regular_times,
    truncate,
    write_audio,
    write_video,
)

COLOUR_TOLERANCE = 6  # levels of 255; measured up to 3 for H.264 and VP9 with YUV 4:2:0
PLACE_TOLERANCE = 2.0  # pixels of 224; measured up to 1.0


def read_frames(path: Path, **options) -> np.ndarray:
    video = VideoFile(path, **options)
    return np.stack([frame.copy() for frame in video.frames()])


def irregular_times(seconds: float, seed: int = 0) -> list[Fraction]:
    """Returns times that are 10 to 400 ms apart, as in recordings of screens and phones."""
    rng = random.Random(seed)
    times = [Fraction(0)]
    while times[-1] < seconds:
        distance_ms = rng.choice([10, 20, 33, 50, 100, 400])
        times.append(times[-1] + Fraction(distance_ms, 1000))
    return times


VIDEOS = {
    "h264.mp4": (regular_times(2), Clip(with_audio=True)),
    "h264_wide.mp4": (regular_times(1), Clip(width=640, height=360)),
    "h264_portrait.mov": (regular_times(1), Clip(width=180, height=320)),
    "h264_24fps.mkv": (regular_times(2, 24), Clip(num_b_frames=3)),
    "h264_ntsc.mkv": (regular_times(2, NTSC), Clip()),
    "h264_60fps.mp4": (regular_times(1, 60), Clip()),
    "h264_12fps.mp4": (regular_times(2, 12), Clip()),
    "h264_444_odd.mkv": (
        regular_times(1),
        Clip(width=241, height=321, pix_fmt="yuv444p"),
    ),
    "h264_odd_target.mp4": (regular_times(1), Clip(width=426, height=240)),
    "h264_full_range.mp4": (regular_times(1), Clip(pix_fmt="yuvj420p")),
    "h264_10bit.mkv": (regular_times(1), Clip(pix_fmt="yuv420p10le")),
    "vp9_odd.webm": (
        regular_times(2, 25),
        Clip(width=321, height=241, codec="libvpx-vp9", with_audio=True),
    ),
    "vfr.mp4": (irregular_times(3), Clip()),
    "vfr.mkv": (irregular_times(2, seed=1), Clip()),
    "tiny.mp4": (regular_times(1), Clip(width=48, height=32)),
    "single.mp4": (regular_times(1 / 30), Clip()),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, (times, clip) in VIDEOS.items():
        write_video(folder / name, times, clip)
    return folder


def plain_ffmpeg(path: Path, extra: str | None = None) -> np.ndarray:
    """Returns the frames of the original pipeline, with its filters in their order.

    FFmpeg chooses the formats between the filters.
    """
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        height = stream.height
        width = stream.width
        high = 224 if height < width else int(height * 224 / width)
        wide = int(width * 224 / height) if height < width else 224
        left = int((wide - 224) / 2)
        top = int((high - 224) / 2)
        steps = [("fps", "30"), ("scale", f"{wide}:{high}")]
        if extra:
            steps.append((extra, ""))
        steps.append(("crop", f"224:224:{left}:{top}"))
        steps.append(("format", "rgb24"))
        steps.append(("buffersink", ""))
        decoded = list(container.decode(stream))
        source = {
            "video_size": f"{width}x{height}",
            "pix_fmt": decoded[0].format.name,
            "range": str(decoded[0].color_range),
            "time_base": str(stream.time_base),
            "pixel_aspect": "1/1",
        }
        graph = av.filter.Graph()
        nodes = [graph.add("buffer", **source)]
        for step in steps:
            nodes.append(graph.add(*step))
        graph.link_nodes(*nodes).configure()
        for frame in [*decoded, None]:
            graph.push(frame)
            with suppress(BlockingIOError, EOFError):
                while True:
                    frames.append(graph.vpull().to_ndarray())
    return np.stack(frames)


def expected(picture: np.ndarray) -> np.ndarray:
    """Scales and crops a drawn picture by nearest neighbour.

    Colours and positions are correct, but edges are not exact.
    """
    height, width = picture.shape[:2]
    high, wide = scaled_size(height, width)
    row_middles = np.arange(high) + 0.5
    rows = (row_middles * height / high).astype(int)
    column_middles = np.arange(wide) + 0.5
    columns = (column_middles * width / wide).astype(int)
    scaled = picture[rows][:, columns]
    top = (high - 224) // 2
    left = (wide - 224) // 2
    return scaled[top : top + 224, left : left + 224]


def middle_of(mask: np.ndarray) -> np.ndarray:
    """Returns the mean row and column of the True pixels."""
    return np.argwhere(mask).mean(axis=0)


# ---- the same as FFmpeg


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_have_the_same_bits_as_with_ffmpegs_filters(videos, name):
    path = videos / name
    np.testing.assert_array_equal(read_frames(path), plain_ffmpeg(path))


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264_wide.mp4", "h264_odd_target.mp4", "h264_444_odd.mkv"]
)
def test_mirrored_frames_have_the_same_bits_as_with_ffmpegs_filters(videos, name):
    mirrored = read_frames(videos / name, hflip=True)
    np.testing.assert_array_equal(mirrored, plain_ffmpeg(videos / name, extra="hflip"))
    assert (mirrored != read_frames(videos / name)).any()


def test_the_number_of_decoder_threads_does_not_change_frames(videos):
    frames = read_frames(videos / "h264.mp4", num_threads=3)
    np.testing.assert_array_equal(frames, read_frames(videos / "h264.mp4"))


# ---- the same as what was drawn


@pytest.mark.parametrize(
    "name", [name for name in VIDEOS if name not in ("tiny.mp4", "single.mp4")]
)
def test_frames_show_what_was_drawn_at_their_times(videos, name):
    times, clip = VIDEOS[name]
    frames = read_frames(videos / name).astype(int)
    # An output frame shows the last decoded frame that has begun by then.
    first_numbers = [round(time * 30 + Fraction(1, 10**9)) for time in times]
    for number in range(0, len(frames), 5):
        begun = [
            time
            for time, first in zip(times, first_numbers, strict=True)
            if first <= number
        ]
        time = float(begun[-1])
        got = frames[number]
        wanted = expected(draw(time, clip.width, clip.height))
        # The background has the right colour.
        drawn = COLOURS[int(time) % len(COLOURS)]
        is_background = (wanted == drawn).all(axis=-1)
        colour = np.median(got[is_background], axis=0)
        assert np.abs(colour - drawn).max() <= COLOUR_TOLERANCE, number
        # The white square is at the right place, if enough of it is in the picture.
        square = (wanted == WHITE).all(axis=-1)
        seen = (got > 215).all(axis=-1)
        if square.sum() > 400:
            distance = np.abs(middle_of(square) - middle_of(seen)).max()
            assert distance <= PLACE_TOLERANCE, number


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["", "hflip", "vflip"])
def test_frames_are_rotated_as_in_a_player(tmp_path, rotation, flip):
    clip = Clip(rotation=rotation, hflip=flip == "hflip", vflip=flip == "vflip")
    path = write_video(tmp_path / "turned.mp4", regular_times(0.2), clip)
    drawn = draw(0, clip.width, clip.height)
    shown = np.rot90(drawn, rotation // 90)
    if flip == "hflip":
        shown = shown[:, ::-1]
    elif flip == "vflip":
        shown = shown[::-1]
    got = read_frames(path)[0].astype(int)
    # Measured 2.0. The most similar other orientation gives 10.5.
    assert np.abs(got - expected(shown)).mean() < 4


def test_frames_are_rotated_by_any_angle(tmp_path):
    path = write_video(tmp_path / "tilted.mp4", regular_times(0.2), Clip(rotation=5))
    straight = write_video(tmp_path / "straight.mp4", regular_times(0.2), Clip())
    assert (read_frames(path) != read_frames(straight)).any()


def test_the_first_frame_is_repeated_if_the_audio_begins_earlier(tmp_path):
    """As in a player, the first frame is shown for half a second before the others."""
    late = [Fraction(1, 2) + time for time in regular_times(1)]
    frames = read_frames(
        write_video(tmp_path / "late.mkv", late, Clip(with_audio=True))
    )
    assert len(frames) == 45
    assert (frames[:16] == frames[0]).all()
    assert (frames[16] != frames[0]).any()


def test_the_frame_size_may_change_within_a_stream(tmp_path):
    """The file consists of two raw H.264 streams, which have no timestamps."""
    parts = []
    for width, height in ((320, 240), (180, 320)):
        path = tmp_path / f"{width}.h264"
        write_video(
            path, regular_times(1), Clip(width=width, height=height, num_b_frames=0)
        )
        parts.append(path.read_bytes())
    both = tmp_path / "both.mp4"
    both.write_bytes(b"".join(parts))
    frames = read_frames(both)
    # FFmpeg assumes 25 frames per second for raw H.264.
    num_expected = 2 * 30 * 30 / 25
    assert abs(len(frames) - num_expected) <= 2
    last = frames[-1].astype(int)
    drawn = expected(draw(29 / 30, 180, 320))
    assert np.abs(last - drawn).mean() < 4


# ---- clips


def test_clips_have_one_second_and_the_last_is_padded_with_black_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", regular_times(1 + 7 / 30))
    video = VideoFile(path)
    frames = read_frames(path)
    first, second = video.clips()
    assert video.notes == []
    assert first.shape == second.shape == (30, 224, 224, 3)
    assert len(frames) == 37
    np.testing.assert_array_equal(first, frames[:30])
    np.testing.assert_array_equal(second[:7], frames[30:])
    assert not second[7:].any()
    one_second = write_video(tmp_path / "b.mp4", regular_times(1))
    assert len(list(VideoFile(one_second).clips())) == 1


def test_only_the_requested_clips_are_decoded(tmp_path):
    """Therefore a long video takes no more memory than a short one."""
    path = write_video(
        tmp_path / "long.mp4", regular_times(20), Clip(width=64, height=48)
    )
    video = VideoFile(path)
    assert len(list(islice(video.clips(), 2))) == 2
    assert video.num_frames == 60


# ---- several encoders

SAMPLINGS = [
    Sampling(Fraction(5, 2), 1, size=None),
    S3D_SAMPLING,
    Sampling(Fraction(50), 20, size=64),  # more frames than most of the videos have
    S3D_SAMPLING,
]


def assert_equal_clips(path: Path, **options) -> list[int]:
    """Compares clips of several samplings with the clips of each alone. Returns their numbers."""
    together = VideoFile(path, samplings=SAMPLINGS, **options)
    clips = [[] for _ in SAMPLINGS]
    for index, clip in together.clips_of_each():
        clips[index].append(clip)
    for index, sampling in enumerate(SAMPLINGS):
        alone = VideoFile(path, samplings=[sampling], **options)
        wanted = list(alone.clips())
        assert len(clips[index]) == len(wanted)
        for clip, wanted_clip in zip(clips[index], wanted, strict=True):
            np.testing.assert_array_equal(clip, wanted_clip)
        assert together.notes == alone.notes
    return [len(clips_of_one) for clips_of_one in clips]


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_clips_of_several_samplings_equal_the_clips_of_each_alone(videos, name):
    assert min(assert_equal_clips(videos / name)) >= 1


@pytest.mark.slow
def test_mirrored_rotated_and_changing_frames_serve_several_samplings(tmp_path):
    rotated = write_video(
        tmp_path / "r.mp4", regular_times(1), Clip(rotation=90, hflip=True)
    )
    assert assert_equal_clips(rotated, hflip=True) == [3, 1, 3, 1]
    part = truncate(
        write_video(tmp_path / "whole.mkv", regular_times(4)), tmp_path / "p.mkv", 0.6
    )
    assert min(assert_equal_clips(part)) >= 2
    parts = []
    for width in (64, 96):
        path = tmp_path / f"{width}.ts"
        clip = Clip(width=width, height=64, num_b_frames=0)
        parts.append(write_video(path, regular_times(1.5), clip).read_bytes())
    changing = tmp_path / "changing.ts"
    changing.write_bytes(b"".join(parts))
    assert assert_equal_clips(changing) == [8, 3, 8, 3]


def test_a_sampling_that_fails_does_not_stop_the_others(tmp_path):
    """The scaled frames of S3D would have more pixels than FFmpeg allows."""
    path = tmp_path / "thin.mov"
    thin = Clip(width=2, height=16_000, codec="png", pix_fmt="rgb24")
    write_video(path, regular_times(1, 4), thin)
    whole = Sampling(Fraction(2), 1, size=None)
    video = VideoFile(path, samplings=[S3D_SAMPLING, whole])
    indices = [index for index, _ in video.clips_of_each()]
    assert indices == [1, 1]
    assert list(video.failed) == [0]
    with pytest.raises(VideoError) as error:
        list(VideoFile(path).clips())
    assert video.failed[0] == str(error.value)
    assert list(video.failed.values()) == ["it cannot be read (Invalid argument)"]
    with pytest.raises(VideoError, match="Invalid argument"):
        list(VideoFile(path, samplings=[S3D_SAMPLING] * 2).clips_of_each())


# ---- broken files


def test_the_error_for_a_broken_file_names_the_reason(tmp_path, videos):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video " * 1000)
    write_audio(tmp_path / "audio.mp4")
    truncate(videos / "h264.mp4", tmp_path / "no_index.mp4", 0.5)
    (tmp_path / "folder.mp4").mkdir()
    near = regular_times(1)
    far = [4000 + time for time in near]
    write_video(tmp_path / "jump.mp4", near + far)
    reasons = {
        "empty": "empty",
        "text": "cannot be read",
        "audio": "audio only",
        "no_index": "Invalid data",
        "folder": "cannot be read",
        "missing": "No such file",
        "jump": "timestamps",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError, match=reason):
            list(VideoFile(tmp_path / f"{name}.mp4").clips())


def test_a_truncated_video_is_read_to_its_end(tmp_path):
    whole = write_video(tmp_path / "whole.mkv", regular_times(4))
    video = VideoFile(truncate(whole, tmp_path / "part.mkv", 0.5))
    frames = np.stack([frame.copy() for frame in video.frames()])
    assert 30 < len(frames) < 90
    intact = frames[:-2]
    np.testing.assert_array_equal(intact, read_frames(whole)[: len(intact)])
    assert "but the file declares 4.0 s" in video.notes[0]


def test_a_damaged_video_is_read_with_a_note(tmp_path):
    content = bytearray(
        write_video(tmp_path / "whole.mkv", regular_times(4)).read_bytes()
    )
    rng = random.Random(0)
    for _ in range(40):
        content[rng.randrange(2000, len(content))] ^= 0xFF
    (tmp_path / "damaged.mkv").write_bytes(content)
    video = VideoFile(tmp_path / "damaged.mkv")
    assert sum(1 for _ in video.frames()) > 60
    assert "damaged" in " ".join(video.notes)


def test_file_names_may_have_colons_and_spaces(tmp_path):
    path = write_video(tmp_path / "a.mp4", regular_times(0.2))
    odd = path.rename(tmp_path / "http: ü #%.mp4")
    assert len(read_frames(odd)) == 6
