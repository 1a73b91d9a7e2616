"""A plan file is read as it was written, and refused when it is foreign or was changed."""

import json
from dataclasses import replace

import pytest

from mmpt.errors import DataError
from mmpt.retrieval import (
    HARDNESS_LOG,
    Hardness,
    Plan,
    PlanMismatchError,
    ids_fingerprint,
    plan_fingerprint,
)

IDS = ["a", "b", "ü", "d"]
PLAN = Plan(epoch=3, fingerprint="abc", num_videos=4, batches=(("a", "ü"), ("b", "d", "a")))


def load(folder, epoch=3, fingerprint="abc", ids=IDS):
    return Plan.load(folder, epoch, fingerprint=fingerprint, ids=ids)


def test_round_trip(tmp_path):
    assert PLAN.save(tmp_path) == tmp_path / "plan_e3.json"
    assert [path.name for path in tmp_path.iterdir()] == ["plan_e3.json"]
    assert load(tmp_path) == PLAN


def test_what_a_kill_left_of_a_plan_goes_when_it_is_made_again(tmp_path):
    half, other = tmp_path / ".plan_e3.json.abc.tmp", tmp_path / ".plan_e4.json.abc.tmp"
    for path in (half, other):
        path.write_text("{")
    PLAN.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "plan_e3.json"]


def test_a_plan_just_made_notes_its_hardness(tmp_path):
    for epoch, cosine in ((1, 0.5), (2, float("nan"))):  # nan: no batch of two videos
        replace(PLAN, epoch=epoch, hardness=Hardness(cosine, 0.25, 0.75)).save(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / HARDNESS_LOG).read_text().splitlines()]
    known = {"random_mean_cosine": 0.25, "coverage": 0.75}
    assert lines == [{"epoch": 1, "mean_cosine": 0.5, **known}, {"epoch": 2, **known}]
    assert load(tmp_path, epoch=1).hardness is None
    PLAN.save(tmp_path / "other")
    assert not (tmp_path / "other" / HARDNESS_LOG).exists()


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"fingerprint": "xyz"}, "`fingerprint` should be xyz, but is abc"),
        ({"ids": IDS[:3]}, "`num_videos` should be 3, but is 4"),
        ({"ids": ["a", "b", "ü", "e"]}, "1 of its videos are not in the training list"),
    ],
)
def test_foreign_plan_is_refused(tmp_path, wanted, match):
    PLAN.save(tmp_path)
    with pytest.raises(PlanMismatchError, match=match):
        load(tmp_path, **wanted)


def test_renamed_plan_is_refused(tmp_path):
    PLAN.save(tmp_path).rename(tmp_path / "plan_e4.json")
    with pytest.raises(PlanMismatchError, match="`epoch` should be 4, but is 3"):
        load(tmp_path, epoch=4)


@pytest.mark.parametrize(
    ("key", "value"), [("batches", [["a", "b"]]), ("batches", []), ("batches", None), ("format", 2)]
)
def test_tampered_plan_is_refused(tmp_path, key, value):
    path = PLAN.save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match="delete it"):
        load(tmp_path)


def test_missing_or_truncated_plan(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path)
    path = PLAN.save(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not valid JSON"):
        load(tmp_path)


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
