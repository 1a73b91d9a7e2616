"""Tests that key frames show what was drawn at their times, upright."""

import base64
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpt.errors import DataError
from mmpt.evaluators import ClipId
from mmpt.media.video_reader import VideoError
from mmpt.reporting import KeyFrames
from mmpt.reporting.frames import read_frame
from tests.support.videos import COLOURS, Clip, regular_times, write_audio, write_video

TIMES = regular_times(6, 10)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "wide.mp4", TIMES)
    write_video(folder / "turned.mp4", TIMES, Clip(rotation=90))
    late = [time + Fraction(2) for time in TIMES]
    write_video(folder / "late.mkv", late, Clip(keyframe_interval=1000))
    write_audio(folder / "sound.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def colour_at(picture: np.ndarray) -> np.ndarray:
    """Returns the colour of the background, away from the corner and from the square."""
    return picture[-8:, -8:].mean(axis=(0, 1))


@pytest.mark.parametrize(
    ("second", "colour"),
    # None: the middle
    [(0.0, 0), (0.5, 0), (1.5, 1), (3.2, 3), (5.9, 5), (60.0, 5), (None, 3)],
)
def test_the_frame_at_the_given_time_is_returned(
    videos: Path, second: float | None, colour: int
) -> None:
    picture = np.array(read_frame(videos / "wide.mp4", second))
    assert picture.shape == (112, 149, 3)
    # 6: encoding
    np.testing.assert_allclose(colour_at(picture), COLOURS[colour], atol=12)
    # The corner is black.
    np.testing.assert_allclose(picture[:20, :20].mean(axis=(0, 1)), 0, atol=12)


def test_the_frame_of_a_rotated_video_is_upright(videos: Path) -> None:
    picture = np.array(read_frame(videos / "turned.mp4", 0.5, height=120))
    assert picture.shape == (160, 120, 3)  # 320 x 240, a quarter turn counter-clockwise
    # The black corner is now at the bottom left.
    np.testing.assert_allclose(picture[-20:, :20].mean(axis=(0, 1)), 0, atol=12)


@pytest.mark.parametrize("name", ["sound.mp4", "broken.mp4"])
def test_a_video_without_frames_is_an_error(videos: Path, name: str) -> None:
    with pytest.raises(VideoError):
        read_frame(videos / name, 1.0)


def test_clips_have_small_key_frames_and_broken_videos_have_none(videos: Path) -> None:
    frames = KeyFrames(videos)
    uri = frames.uri(ClipId("wide", 2, 3))
    assert uri is not None
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 20_000
    _, _, encoded = uri.partition(",")
    file = io.BytesIO(base64.b64decode(encoded))
    picture = np.array(Image.open(file))
    np.testing.assert_allclose(colour_at(picture), COLOURS[2], atol=15)
    assert frames.uri(ClipId("late")) is not None
    assert frames.uri(ClipId("broken", 0, 1)) is None
    assert frames.uri(ClipId("unknown", 0, 1)) is None
    assert KeyFrames().uri(ClipId("wide", 2, 3)) is None


def test_a_folder_without_videos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no video"):
        KeyFrames(tmp_path)
