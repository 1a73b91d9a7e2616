"""Batches from neighbours made by hand and from vectors in clusters, and the file of a plan."""

import json
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
    epoch=3, fingerprint="abc", list_fingerprint="list", num_videos=4, batches=((0, 2), (1, 3, 0))
)


def test_round_trip(tmp_path):
    assert PLAN.save(tmp_path, IDS) == tmp_path / "plan_e3.json"
    assert [path.name for path in tmp_path.iterdir()] == ["plan_e3.json"]
    assert Plan.load(tmp_path, 3, "abc", "list") == PLAN


def test_the_file_names_the_videos_for_people(tmp_path):
    written = json.loads(PLAN.save(tmp_path, IDS).read_text())
    assert written["batches"] == [["a", "ü"], ["b", "d", "a"]]
    assert written["positions"] == [[0, 2], [1, 3, 0]]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    half, other = tmp_path / ".plan_e3.json.abc.tmp", tmp_path / ".plan_e4.json.abc.tmp"
    for path in (half, other):
        path.write_text("{")
    PLAN.save(tmp_path, IDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "plan_e3.json"]


def test_saving_a_new_plan_logs_its_hardness(tmp_path):
    known = {"random_mean_cosine": 0.25, "coverage": 0.75}
    for epoch, cosine in ((1, 0.5), (2, float("nan"))):  # nan: no batch of two videos
        replace(PLAN, epoch=epoch, hardness={"mean_cosine": cosine, **known}).save(tmp_path, IDS)
    lines = [json.loads(line) for line in (tmp_path / HARDNESS_LOG).read_text().splitlines()]
    assert lines == [{"epoch": 1, "mean_cosine": 0.5, **known}, {"epoch": 2, **known}]
    assert Plan.load(tmp_path, 1, "abc", "list").hardness is None
    PLAN.save(tmp_path / "other", IDS)
    assert not (tmp_path / "other" / HARDNESS_LOG).exists()


def test_a_foreign_or_renamed_plan_is_refused(tmp_path):
    path = PLAN.save(tmp_path, IDS)
    with pytest.raises(DataError, match=r"plan_e3\.json: must be the plan .* fingerprint xyz"):
        Plan.load(tmp_path, 3, "xyz", "list")
    with pytest.raises(DataError, match="made from something else"):
        Plan.load(tmp_path, 3, "abc", "another list")
    path.rename(tmp_path / "plan_e4.json")
    with pytest.raises(DataError, match=r"plan_e4\.json: must be the plan of epoch 4"):
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
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match="must be the plan of epoch 3"):
        Plan.load(tmp_path, 3, "abc", "list")


def test_missing_truncated_and_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Plan.load(tmp_path, 3, "abc", "list")
    path = PLAN.save(tmp_path, IDS)
    for content, message in ((path.read_bytes()[:-20], "not valid JSON"), (b"[]", "must be the")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            Plan.load(tmp_path, 3, "abc", "list")


def test_fingerprint_depends_on_everything_but_the_order_of_settings():
    settings = {"epoch": 1, "num_cands": 192, "nprobe": "auto"}
    ids = ids_fingerprint(IDS)
    base = plan_fingerprint(ids=ids, weights="w0", **settings)
    assert base == plan_fingerprint(ids=ids, weights="w0", **dict(reversed(settings.items())))
    others = [
        plan_fingerprint(ids=ids, weights="w1", **settings),
        plan_fingerprint(ids=ids_fingerprint(IDS[::-1]), weights="w0", **settings),
        plan_fingerprint(ids=ids_fingerprint(["ab", *IDS[2:]]), weights="w0", **settings),
        *(plan_fingerprint(ids=ids, weights="w0", **(settings | {key: 7})) for key in settings),
    ]
    assert len({base, *others}) == 7


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
    centres = draw(st.lists(st.integers(0, num_videos - 1), min_size=1, max_size=8, unique=True))
    neighbours = np.full((len(centres), k), -1)
    for row in neighbours:
        found = draw(st.permutations(range(num_videos)))[: draw(st.integers(0, k))]
        row[: len(found)] = found
    return neighbours, centres


@given(neighbourhoods(), st.integers(1, 10), st.integers())
def test_every_batch_has_different_candidates_and_the_right_size(searched, per_batch, seed):
    neighbours, centres = searched
    batches = plan_batches(neighbours, centres, per_batch, random.Random(seed))
    assert len(batches) == len(centres)
    for batch, found, centre in zip(batches, neighbours, centres, strict=True):
        candidates = {centre, *found.tolist()} - {-1}
        assert len(set(batch)) == len(batch) == min(per_batch, len(candidates))
        assert set(batch) <= candidates


def test_hardness_equals_the_mean_over_pairs():
    vectors = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32) + 0.5
    batches = [[0, 1, 2, 3], [4, 5, 6, 1], [9, 3]]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = [
        np.mean([unit[a] @ unit[b] for a in batch for b in batch if a != b]) for batch in batches
    ]
    hardness = plan_hardness(vectors, batches, random.Random(0))
    assert hardness["mean_cosine"] == pytest.approx(np.mean(means), abs=1e-6)  # measured: 0
    assert hardness["coverage"] == 8 / 30


def planted(num_clusters=25, size=32, dim=16):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_clusters), size)[rng.permutation(num_clusters * size)]
    vectors = 5 * rng.standard_normal((num_clusters, dim))[labels] + rng.standard_normal(
        (len(labels), dim)
    )
    return vectors.astype(np.float32), labels, [f"video{number}" for number in range(len(labels))]


def refresh(vectors, ids, epoch=1, num_cands=32, **settings):
    retriever = VectorRetriever(vectors.shape[1], 16, **settings)
    return refresh_plan(
        vectors,
        ids,
        epoch=epoch,
        videos_per_batch=8,
        num_cands=num_cands,
        retriever=retriever,
        fingerprint="f",
        list_fingerprint="list",
        watch=Stopwatch(),
    )


def test_batches_are_planted_clusters():
    vectors, labels, ids = planted()
    plan = refresh(vectors, ids)
    assert len(plan.batches) == len(ids) // 8
    for batch in plan.batches:
        assert len(set(batch)) == 8
        assert len(set(labels[list(batch)])) == 1
    assert plan.hardness["mean_cosine"] > 0.9  # measured: 0.956
    assert abs(plan.hardness["random_mean_cosine"]) < 0.1  # measured: 0.032
    assert plan.hardness["coverage"] == len(set().union(*plan.batches)) / 800


def test_a_plan_depends_on_its_arguments_only():
    vectors, _, ids = planted()
    random.seed(1)
    first = refresh(vectors, ids)
    random.seed(2)
    np.random.seed(2)
    assert refresh(vectors, ids) == first
    assert refresh(vectors, ids, epoch=2).batches != first.batches


def test_auto_fills_every_batch_and_a_single_probe_does_not():
    vectors, _, ids = planted(num_clusters=100, size=4)
    # Two lists of 5 videos each.
    vectors[:10] += 1000 * np.repeat(np.eye(16, dtype=np.float32)[:2], 5, axis=0)
    sizes = [
        {
            len(batch)
            for epoch in range(1, 6)
            for batch in refresh(vectors, ids, epoch, **more).batches
        }
        for more in ({"nprobe": 1}, {})
    ]
    assert sizes == [{5, 8}, {8}]
