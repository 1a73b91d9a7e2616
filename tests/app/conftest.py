"""Fixtures: an index of two short videos, and a transcript of one of them."""

from pathlib import Path

import numpy as np
import pytest

from mmpt.app.video_files import VideoFiles
from mmpt.inference.moment_index import MomentIndex
from tests.support.known_towers import known_model, seconds_of
from tests.support.tiny_run import make_run
from tests.support.videos import Clip, regular_times, write_video

TINY = Clip(width=96, height=64)
STEPS = {
    "pancakes & co": [
        ("cut the tomato", 10),
        ("pour the milk", 12),
        ("heat the pan", 8),
    ],
    "deep/bread": [("mix the dough", 16), ("heat the pan", 8)],
}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[MomentIndex, VideoFiles]:
    """The index and its files. Its model finds the seconds that show the words of a text.

    The folder of the videos also has a video that is not in the index.
    """
    folder = tmp_path_factory.mktemp("app")
    model = known_model(make_run(folder / "run"))
    features = {}
    for name, steps in STEPS.items():
        path = folder / "videos" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = seconds_of(model, *steps)
        np.save(path, rows)
        write_video(path.with_suffix(".mp4"), regular_times(len(rows), 5), TINY)
        features[name] = path
    write_video(folder / "videos" / "other.mp4", regular_times(1, 5), TINY)
    index = MomentIndex.build(folder / "index", model, features, window_s=4, stride_s=2)
    return index, VideoFiles(STEPS, [folder / "videos"])


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    """The steps of the first video, spoken 3 seconds before they are shown."""
    lines = ["WEBVTT", ""]
    start = 0
    for text, seconds in STEPS["pancakes & co"]:
        spoken = max(start - 3, 0)
        lines += [f"00:{spoken:02d}.000 --> 00:{spoken + 4:02d}.000", text, ""]
        start += seconds
    path = tmp_path / "pancakes.vtt"
    path.write_text("\n".join(lines))
    return path
