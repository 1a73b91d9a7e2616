"""Tests of the videos of the demo corpus: features, order of steps and captions, and settings."""

import re
from itertools import pairwise

import numpy as np
import pytest

from mmpt.prepare.demo_corpus.corpus import count_videos
from mmpt.prepare.demo_corpus.settings import CorpusSettings
from mmpt.prepare.demo_corpus.video import make_features, make_video
from mmpt.prepare.demo_corpus.words import VAGUE, make_vocabulary
from mmpt.prepare.demo_corpus.world import make_world


@pytest.fixture(scope="module")
def world():
    return make_world(CorpusSettings())


# ---- the truth


def test_the_features_of_a_step_are_closest_to_its_prototype(world):
    """Compares the nearest prototype, found by brute force, with the true step."""
    looks = []
    prototypes = []
    for place, step in enumerate(world.steps):
        for kind in step.kinds:
            looks.append((place, kind))
            prototypes.append(world.prototype(place, kind))
    embedded = np.stack(prototypes) @ world.basis
    steps, kinds, background = [], [], []
    for index in range(40):
        video = make_video(world, "train", index)
        features = make_features(world, video).astype(np.float64)
        scores = features @ embedded.T
        nearest = scores.argmax(1)
        best = scores.max(1)
        is_shown = np.zeros(video.num_seconds, bool)
        for shown in video.performances:
            for second in range(shown.start, shown.end):
                is_shown[second] = True
                step, kind = looks[nearest[second]]
                steps.append(step == shown.step)
                kinds.append(step == shown.step and kind == shown.kind)
        assert best[is_shown].mean() > 0.4  # cosine; measured 0.51 on average
        background.extend(best[~is_shown])
    assert np.mean(steps) > 0.9  # measured 0.96
    assert np.mean(kinds) > 0.8  # measured 0.90
    assert np.mean(background) < 0.35  # measured 0.28


def test_videos_show_steps_in_the_order_of_their_task(world):
    for index in range(60):
        video = make_video(world, "val", index)
        task = world.tasks[video.task]
        order = [task.index(shown.step) for shown in video.performances]
        first = list(dict.fromkeys(order))
        assert first == sorted(first)
        assert 3 <= len(order) <= 14


def test_steps_do_not_overlap(world):
    for index in range(60):
        video = make_video(world, "val", index)
        for shown in video.performances:
            assert shown.start < shown.end
        for before, after in pairwise(video.performances):
            assert before.end <= after.start
        last = video.performances[-1]
        assert last.end <= video.num_seconds


def test_related_tasks_share_steps_in_another_order(world):
    swapped = []
    for one, other in zip(world.tasks, world.tasks[4:], strict=False):
        shared = set(one) & set(other)
        assert len(shared) >= 3
        order = [step for step in one if step in shared]
        other_order = [step for step in other if step in shared]
        swapped.append(order != other_order)
    assert np.mean(swapped) >= 0.5


def test_captions_are_ordered_and_do_not_overlap():
    world = make_world(CorpusSettings(misalign=1.0, max_offset=60.0, irrelevant=0.8))
    for index in range(40):
        video = make_video(world, "train", index)
        times = []
        for caption in video.captions:
            times += [caption.start, caption.end]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= video.num_seconds


def test_a_caption_contains_words_of_its_step(world):
    for index in range(20):
        video = make_video(world, "train", index)
        for caption in video.captions:
            if caption.about is not None:
                shown = video.performances[caption.about]
                step = world.steps[shown.step]
                assert step.thing in caption.text or step.do in caption.text


def test_a_smaller_corpus_is_the_beginning_of_a_larger_one():
    small = make_world(CorpusSettings(num_videos=10))
    large = make_world(CorpusSettings(num_videos=1000))
    one = make_video(small, "train", 4)
    other = make_video(large, "train", 4)
    assert one == other
    features = make_features(small, one)
    np.testing.assert_array_equal(features, make_features(large, other))


# ---- the rates


def rates(**settings):
    world = make_world(CorpusSettings(**settings))
    return count_videos([make_video(world, "train", index) for index in range(80)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_irrelevant_sets_the_share_of_chat(share):
    assert rates(irrelevant=share)["irrelevant"] == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_omit_sets_the_share_of_silent_steps(share):
    # The tolerance is 3 standard deviations of 540 draws.
    assert rates(omit=share)["silent"] == pytest.approx(share, abs=0.06)


def test_misalign_moves_narration_away_from_its_step():
    # Measured 0.004, 0.209, 0.406. About half of the offsets of 4 to 12 s leave the step.
    for share, wanted in ((0.0, 0.0), (0.4, 0.21), (0.8, 0.41)):
        found = rates(misalign=share, max_offset=12.0, irrelevant=0.1, omit=0.15)
        assert found["misaligned"] == pytest.approx(wanted, abs=0.06)


def test_vague_sets_the_share_of_captions_that_do_not_name_their_step():
    for share in (0.0, 0.5):
        world = make_world(CorpusSettings(vague=share))
        vague = []
        for index in range(40):
            for caption in make_video(world, "train", index).captions:
                if caption.about is not None:
                    vague.append(caption.text in VAGUE)
        # 3 deviations of 750 draws.
        assert np.mean(vague) == pytest.approx(share, abs=0.06)


def test_vague_captions_consist_of_whole_words_of_the_vocabulary():
    words = re.findall("[a-z]+", " ".join(VAGUE).lower())
    assert set(words) <= set(make_vocabulary())


def test_reorder_sets_the_share_of_videos_in_another_order():
    for share in (0.0, 0.5, 1.0):
        world = make_world(CorpusSettings(reorder=share, repeat=0.0))
        reordered = []
        for index in range(80):
            video = make_video(world, "train", index)
            order = [
                world.tasks[video.task].index(shown.step)
                for shown in video.performances
            ]
            reordered.append(order != sorted(order))
        # 2.7 deviations of 80 draws.
        assert np.mean(reordered) == pytest.approx(share, abs=0.15)
