"""The oracle knows what the videos show, and is better than chance."""

import numpy as np
import pytest

from experiments.corpora import HALF_ALIGNED
from experiments.oracle import (
    Oracle,
    all_corpora,
    main,
    references,
    validation_videos,
)

CLEAR = HALF_ALIGNED.with_options(
    "clear", num_val=8, num_tasks=8, noise=0.0, variation=0.0, style=0.0
)


def test_a_sentence_is_the_sum_of_the_looks_of_its_words() -> None:
    world, _ = validation_videos(CLEAR)
    oracle = Oracle(world)
    found_TL = oracle.sentences(["I am chopping the red onion.", "Hello everyone."])
    sum_L = world.looks["chop"] + world.looks["red"] + world.looks["onion"]
    np.testing.assert_allclose(found_TL[0], sum_L / np.linalg.norm(sum_L))
    assert not found_TL[1].any()


def test_a_second_looks_like_its_step() -> None:
    world, videos = validation_videos(CLEAR)
    shown = videos[0].performances[0]
    second_L = Oracle(world).seconds(videos[0])[shown.start]
    # The grain in the dimensions of the looks has a length of sqrt(64 / 512).
    assert second_L @ world.prototype(shown.step, shown.kind) > 0.9


def test_the_oracle_is_perfect_without_noise() -> None:
    chance, best = references(CLEAR)
    _, videos = validation_videos(CLEAR)
    num_clips = sum(len(video.performances) for video in videos)
    assert chance.clip == pytest.approx(1 / num_clips)
    assert chance.dtw == chance.average_background == 1 / 8
    assert best.average == best.dtw == best.dtw_background == 1
    assert all(numbers[0] < numbers[1] for numbers in zip(chance, best, strict=True))


def test_the_corpora_of_the_experiment_on_noise_are_included() -> None:
    corpora = all_corpora()
    assert corpora["half-aligned"] == HALF_ALIGNED
    assert corpora["howto100m-irrelevant0.35"].option("irrelevant") == 0.35


def test_the_table_has_two_lines_per_corpus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(main.__globals__["CORPORA"], "half-aligned", CLEAR)
    assert main(["--corpora", "half-aligned"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "half-aligned, random",
        "half-aligned, oracle",
    ]
    assert len({line.count("|") for line in lines}) == 1
