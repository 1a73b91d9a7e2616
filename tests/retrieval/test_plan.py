"""Plan files: a round trip, and refusal of changed files and of those of other runs."""

import json
from dataclasses import replace

import pytest

from mmpt.errors import DataError
from mmpt.retrieval import HARDNESS_LOG, Plan, ids_fingerprint, plan_fingerprint

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
