"""The statistics of a hand-made narration, and of the corpora that follow published ones."""

import pytest

from experiments.corpora import (
    HALF_ALIGNED,
    HOWTO100M,
    demo_videos,
    narration_statistics,
)
from mmpt.cli.make_demo_data import main
from mmpt.prepare.demo_corpus.narration import Caption
from mmpt.prepare.demo_corpus.video import Video
from mmpt.prepare.demo_corpus.world import Performance


def video(name: str, *captions: Caption) -> Video:
    shown = (Performance(0, "", 10, 20), Performance(1, "", 30, 40))
    return Video(name, 0, 60, shown, captions)


def test_the_statistics_of_two_videos() -> None:
    one = video(
        "one",
        Caption(0.0, 2.0, "Hello.", None),
        Caption(12.0, 14.0, "Chop it.", 0),  # said while it is shown
        Caption(19.0, 27.0, "Fry it.", 0),  # middle 23: 3 s late
        Caption(27.0, 29.0, "Stir it.", 1),  # middle 28: 2 s early
    )
    other = video(
        "other", Caption(0.0, 2.0, "Hello.", None), Caption(4.0, 5.0, "Nice.", None)
    )
    found = narration_statistics([one, other])
    assert found == {
        "alignable": pytest.approx(3 / 6),
        "aligned": pytest.approx(1 / 6),
        "offset_s": pytest.approx(2.5),
        "repeated": pytest.approx(2 / 6),
        "per_minute": pytest.approx(3.0),
    }


def test_the_statistics_without_late_captions() -> None:
    assert (
        narration_statistics([video("one", Caption(0.0, 2.0, "Hello.", None))])[
            "offset_s"
        ]
        == 0
    )


def test_the_corpora_are_like_published_samples_of_howto100m() -> None:
    """Han et al. 2022: 30 % alignable, 15 % aligned. Miech et al. 2020: half of the pairs fit."""
    found = narration_statistics(demo_videos(HOWTO100M, 200))
    assert found["alignable"] == pytest.approx(0.30, abs=0.01)  # measured 0.300
    assert found["aligned"] == pytest.approx(0.15, abs=0.02)  # measured 0.153
    found = narration_statistics(demo_videos(HALF_ALIGNED, 200))
    assert found["aligned"] == pytest.approx(0.5, abs=0.06)  # measured 0.464


def test_the_command_has_all_options(tmp_path) -> None:
    corpus = HOWTO100M.with_options("tiny", num_videos=4, num_val=2, num_tasks=2)
    command = corpus.command(tmp_path / "data", seed=3)
    assert command[:3] == ["-m", "mmpt", "make-demo-data"]
    assert main(command[3:]) == 0
    assert '"irrelevant": 0.7' in (tmp_path / "data" / "demo.json").read_text()
