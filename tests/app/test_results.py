"""Captions, pictures and players of moments."""

import numpy as np
import pytest

from mmpt.app.results import PICTURE_SIZE, describe, find_moments, picture, player
from mmpt.app.video_files import VideoFiles
from mmpt.errors import DataError
from mmpt.inference.moments import Moment
from tests.support.videos import COLOURS, Clip, regular_times, write_video

MOMENT = Moment("a", 75, 80, 0.834)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> VideoFiles:
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "a.mp4", regular_times(6, 10), Clip(width=160, height=90))
    (folder / "broken.mp4").write_bytes(b"no video")
    return VideoFiles(["a", "broken", "gone"], [folder])


def test_a_caption_has_time_score_and_video() -> None:
    assert describe(MOMENT) == "1:15–1:20 · 0.83 · a"


def test_a_picture_shows_the_middle_of_the_moment(files: VideoFiles) -> None:
    frame, caption = picture(files, Moment("a", 2, 5, 1.0))
    assert frame.size == PICTURE_SIZE
    # The bottom right corner has the colour of second 3.
    assert np.abs(np.array(frame)[-5, -5] - COLOURS[3].astype(int)).max() < 12
    assert caption == "0:02–0:05 · 1.00 · a"


@pytest.mark.parametrize("name", ["broken", "gone"])
def test_a_video_that_cannot_be_read_is_grey(files: VideoFiles, name: str) -> None:
    frame, _ = picture(files, Moment(name, 0, 5, 1.0))
    assert frame.getcolors() == [(320 * 180, (203, 213, 225))]


def test_a_player_starts_at_the_start_of_the_moment(files: VideoFiles) -> None:
    assert 'src="videos/a#t=75"' in player(files, MOMENT)
    without = player(files, MOMENT._replace(video="<gone>"))
    assert "<video" not in without
    assert "&lt;gone&gt;" in without
    assert "no video file" in without


@pytest.mark.parametrize("text", ["", " \n"])
def test_a_search_needs_text(text: str) -> None:
    with pytest.raises(DataError, match="Enter a description"):
        find_moments(None, text, 3)
