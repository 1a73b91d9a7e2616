"""Batches from hand-made neighbours and from vectors in clusters, and the file of a plan."""

import itertools
import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpt.errors import DataError
from mmpt.retrieval import (
    HARDNESS_LOG,
    Plan,
    VectorRetriever,
    ids_fingerprint,
    plan_batches,
    plan_fingerprint,
    plan_hardness,
    refresh_plan,
)
from mmpt.utils.stopwatch import Stopwatch

IDS = ["a", "b", "ü", "d"]
PLAN = Plan(
    epoch=3,
    fingerprint="abc",
    list_fingerprint="list",
    num_videos=4,
    batches=((0, 2), (1, 3, 0)),
)


def test_a_plan_is_read_back(tmp_path):
    path = PLAN.save(tmp_path, IDS)
    assert path == tmp_path / "plan_e3.json"
    assert list(tmp_path.iterdir()) == [path]
    assert Plan.load(tmp_path, 3, "abc", "list") == PLAN


def test_the_file_contains_video_ids_for_readers(tmp_path):
    path = PLAN.save(tmp_path, IDS)
    written = json.loads(path.read_text())
    assert written["batches"] == [["a", "ü"], ["b", "d", "a"]]
    assert written["positions"] == [[0, 2], [1, 3, 0]]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    half = tmp_path / ".plan_e3.json.abc.tmp"
    other = tmp_path / ".plan_e4.json.abc.tmp"
    half.write_text("{")
    other.write_text("{")
    path = PLAN.save(tmp_path, IDS)
    assert set(tmp_path.iterdir()) == {path, other}


def test_saving_a_new_plan_logs_its_hardness(tmp_path):
    known = {"random_mean_cosine": 0.25, "coverage": 0.75}
    first = replace(PLAN, epoch=1, hardness={"mean_cosine": 0.5, **known})
    unknown = replace(PLAN, epoch=2, hardness={"mean_cosine": math.nan, **known})
    first.save(tmp_path, IDS)
    unknown.save(tmp_path, IDS)
    log = (tmp_path / HARDNESS_LOG).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines == [{"epoch": 1, "mean_cosine": 0.5, **known}, {"epoch": 2, **known}]


def test_a_plan_that_was_read_has_no_hardness_to_log(tmp_path):
    replace(PLAN, hardness={"mean_cosine": 0.5}).save(tmp_path, IDS)
    read = Plan.load(tmp_path, 3, "abc", "list")
    assert read.hardness is None
    read.save(tmp_path / "other", IDS)
    assert not (tmp_path / "other" / HARDNESS_LOG).exists()


def test_the_hardness_of_a_repeated_plan_is_logged_once(tmp_path):
    """This happens after a kill, and after a return to an earlier checkpoint."""
    for epoch in (1, 2, 2, 3, 2):
        replace(PLAN, epoch=epoch, hardness={"coverage": epoch / 4}).save(tmp_path, IDS)
    lines = [
        json.loads(line) for line in (tmp_path / HARDNESS_LOG).read_text().splitlines()
    ]
    assert lines == [{"epoch": 1, "coverage": 0.25}, {"epoch": 2, "coverage": 0.5}]


def test_a_plan_of_another_run_or_epoch_is_refused(tmp_path):
    path = PLAN.save(tmp_path, IDS)
    with pytest.raises(
        DataError, match=r"plan_e3\.json: not the plan .* fingerprint xyz"
    ):
        Plan.load(tmp_path, 3, "xyz", "list")
    with pytest.raises(DataError, match="made from other inputs"):
        Plan.load(tmp_path, 3, "abc", "another list")
    path.rename(tmp_path / "plan_e4.json")
    with pytest.raises(DataError, match=r"plan_e4\.json: not the plan of epoch 4"):
        Plan.load(tmp_path, 4, "abc", "list")


@pytest.mark.parametrize(
    "change",
    [
        {"batches": [["a", "b"]]},
        {"positions": [[0, 1]]},
        {"positions": []},
        {"positions": None},
        {"format": 1},
        {"epoch": 4},
    ],
)
def test_a_changed_plan_is_refused(tmp_path, change):
    path = PLAN.save(tmp_path, IDS)
    written = json.loads(path.read_text())
    path.write_text(json.dumps(written | change))
    with pytest.raises(DataError, match="not the plan of epoch 3"):
        Plan.load(tmp_path, 3, "abc", "list")


def test_missing_truncated_and_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Plan.load(tmp_path, 3, "abc", "list")
    path = PLAN.save(tmp_path, IDS)
    truncated = path.read_bytes()[:-20]
    path.write_bytes(truncated)
    with pytest.raises(DataError, match="not valid JSON"):
        Plan.load(tmp_path, 3, "abc", "list")
    path.write_bytes(b"[]")
    with pytest.raises(DataError, match="not the plan"):
        Plan.load(tmp_path, 3, "abc", "list")


SETTINGS = {"epoch": 1, "num_cands": 192, "nprobe": "auto"}


def test_a_fingerprint_depends_on_all_settings_the_list_and_the_weights():
    ids = ids_fingerprint(IDS)
    fingerprints = {plan_fingerprint(ids=ids, weights="w0", **SETTINGS)}
    fingerprints.add(plan_fingerprint(ids=ids, weights="w1", **SETTINGS))
    for other_list in (IDS[::-1], ["ab", *IDS[2:]]):
        other_ids = ids_fingerprint(other_list)
        fingerprints.add(plan_fingerprint(ids=other_ids, weights="w0", **SETTINGS))
    for key in SETTINGS:
        changed = SETTINGS | {key: 7}
        fingerprints.add(plan_fingerprint(ids=ids, weights="w0", **changed))
    assert len(fingerprints) == 7


def test_a_fingerprint_does_not_depend_on_the_order_of_settings():
    turned = dict(reversed(SETTINGS.items()))
    one = plan_fingerprint(ids="ids", weights="w0", **SETTINGS)
    assert plan_fingerprint(ids="ids", weights="w0", **turned) == one


def test_batches_from_neighbours_made_by_hand():
    neighbours = np.array([[4, 1, 7, -1], [2, 9, 3, 5], [6, 0, 1, 8]])
    batches = plan_batches(neighbours, [4, 2, 5], 4, random.Random(3))
    rng = random.Random(3)
    # The first two batches have 3 and 4 candidates, which keep their order. The third one has 5
    # (its centre is not among its own neighbours), of which 4 are sampled.
    assert batches == [[4, 1, 7], [2, 9, 3, 5], rng.sample([5, 6, 0, 1, 8], 4)]


@st.composite
def neighbourhoods(draw):
    """Returns neighbours int64 [m, k] with -1 for none at the end of a row, and m centres."""
    num_videos = draw(st.integers(2, 30))
    k = draw(st.integers(1, num_videos))
    centres = draw(
        st.lists(st.integers(0, num_videos - 1), min_size=1, max_size=8, unique=True)
    )
    neighbours = np.full((len(centres), k), -1)
    for row in neighbours:
        order = draw(st.permutations(range(num_videos)))
        num_found = draw(st.integers(0, k))
        row[:num_found] = order[:num_found]
    return neighbours, centres


@given(neighbourhoods(), st.integers(1, 10), st.integers())
def test_every_batch_has_different_candidates_and_the_right_size(
    searched, per_batch, seed
):
    neighbours, centres = searched
    batches = plan_batches(neighbours, centres, per_batch, random.Random(seed))
    assert len(batches) == len(centres)
    for batch, found, centre in zip(batches, neighbours, centres, strict=True):
        candidates = {centre, *found.tolist()} - {-1}
        assert len(batch) == min(per_batch, len(candidates))
        assert len(set(batch)) == len(batch)
        assert set(batch) <= candidates


def test_hardness_equals_the_mean_over_pairs():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 8)).astype(np.float32) + 0.5
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    batches = [[0, 1, 2, 3], [4, 5, 6, 1], [9, 3]]
    means = []
    for batch in batches:
        cosines = [unit[a] @ unit[b] for a, b in itertools.permutations(batch, 2)]
        means.append(np.mean(cosines))
    hardness = plan_hardness(vectors, batches, random.Random(0))
    # measured: 0
    assert hardness["mean_cosine"] == pytest.approx(np.mean(means), abs=1e-6)
    assert hardness["coverage"] == 8 / 30


def test_the_hardness_of_many_batches_is_measured_on_a_sample():
    vectors = np.eye(4, dtype=np.float32)
    vectors[1] = vectors[0]
    batches = [[0, 1], [2, 3]]  # with the cosines 1 and 0
    all_batches = plan_hardness(vectors, batches, random.Random(0))
    assert all_batches["mean_cosine"] == 0.5
    one_batch = plan_hardness(vectors, batches, random.Random(0), max_judged=1)
    assert one_batch["mean_cosine"] in (0, 1)
    assert one_batch["coverage"] == 1


def test_batches_of_one_video_have_no_cosine():
    hardness = plan_hardness(np.eye(4, dtype=np.float32), [[0], [1]], random.Random(0))
    assert math.isnan(hardness["mean_cosine"])
    assert math.isnan(hardness["random_mean_cosine"])
    assert hardness["coverage"] == 0.5


def planted(num_clusters=25, size=32, dim=16):
    """Returns vectors in clusters, and the cluster of each."""
    num_videos = num_clusters * size
    rng = np.random.default_rng(0)
    order = rng.permutation(num_videos)
    labels = np.repeat(np.arange(num_clusters), size)[order]
    centres = 5 * rng.standard_normal((num_clusters, dim))
    noise = rng.standard_normal((num_videos, dim))
    vectors = centres[labels] + noise
    return vectors.astype(np.float32), labels


def refresh(vectors, epoch=1, num_cands=32, **settings):
    """Plans batches of 8 videos."""
    retriever = VectorRetriever(vectors.shape[1], 16, **settings)
    return refresh_plan(
        vectors,
        epoch=epoch,
        videos_per_batch=8,
        num_cands=num_cands,
        retriever=retriever,
        fingerprint="f",
        list_fingerprint="list",
        watch=Stopwatch(),
    )


def test_each_batch_is_from_one_cluster():
    vectors, labels = planted()
    plan = refresh(vectors)
    assert len(plan.batches) == len(vectors) // 8
    for batch in plan.batches:
        assert len(set(batch)) == 8
        clusters = labels[list(batch)]
        assert len(set(clusters)) == 1
    covered = set().union(*plan.batches)
    assert plan.hardness["mean_cosine"] > 0.9  # measured: 0.956
    assert abs(plan.hardness["random_mean_cosine"]) < 0.1  # measured: 0.032
    assert plan.hardness["coverage"] == len(covered) / 800


def test_a_plan_depends_only_on_its_arguments():
    vectors, _ = planted()
    random.seed(1)
    first = refresh(vectors)
    random.seed(2)
    np.random.seed(2)
    assert refresh(vectors) == first
    assert refresh(vectors, epoch=2).batches != first.batches


@pytest.mark.parametrize(("settings", "sizes"), [({"nprobe": 1}, {5, 8}), ({}, {8})])
def test_auto_fills_every_batch_unlike_a_single_probe(settings, sizes):
    vectors, _ = planted(num_clusters=100, size=4)
    # Two lists of 5 videos each.
    axes = np.eye(16, dtype=np.float32)[:2]
    vectors[:10] += 1000 * np.repeat(axes, 5, axis=0)
    found = set()
    for epoch in range(1, 6):
        plan = refresh(vectors, epoch, **settings)
        found.update(map(len, plan.batches))
    assert found == sizes
