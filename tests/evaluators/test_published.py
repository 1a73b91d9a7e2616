"""The published numbers belong to existing metrics and YAMLs. Notes report incomparable numbers."""

from pathlib import Path

import pytest

from mmpt.config import load_config
from mmpt.evaluators import METRICS
from mmpt.evaluators.published import (
    METHODS,
    benchmark_key,
    comparability_notes,
    published_benchmarks,
    setting_of,
)
from tests.support.paths import ROOT

EVALUATIONS = sorted(
    path
    for path in (ROOT / "projects" / "retri").glob("*/test_*.yaml")
    if "how2_demo" not in path.name
)


@pytest.mark.parametrize("key", list(published_benchmarks()))
def test_every_number_is_computed_by_its_metric(key: str) -> None:
    benchmark = published_benchmarks()[key]
    metric = METRICS.get(benchmark.metric, "metric")
    declared = {number.name for number in metric.numbers}
    assert set(benchmark.numbers) <= declared
    assert setting_of(key) == benchmark.setting
    assert all(len(values) == len(METHODS) for values in benchmark.numbers.values())
    for values in benchmark.numbers.values():
        assert all(value is None or 1 < value < 100 for value in values)


@pytest.mark.parametrize(
    "path", EVALUATIONS, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_evaluation_has_its_benchmark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    benchmark = published_benchmarks()[benchmark_key(path.stem)]
    assert benchmark.metric in load_config(path).metric
    assert setting_of(path.stem) == (
        "zero-shot" if "_zs" in path.stem else "fine-tuned"
    )


def test_some_numbers_from_the_papers() -> None:
    full_video = published_benchmarks()["youcook_fullvideo_zs"]
    assert full_video.numbers["OTAM-R1"] == (52.8, 84.9, 88.9)
    norton = full_video.papers["Norton"]["FullVideoRetrievalMetric"]
    assert len(norton) == 9
    assert (norton["R1"], norton["DTW-R5"], norton["OTAM-R10"]) == (0.755, 0.988, 0.995)
    # Not reported.
    assert published_benchmarks()["coin_zs"].papers["Norton"] == {
        "COINActionSegmentationMetric": {}
    }


@pytest.mark.parametrize(
    ("task", "key", "setting"),
    [
        ("test_vtt_zs", "vtt_zs", "zero-shot"),
        ("test_vtt_ft", "vtt_ft", "fine-tuned"),
        ("test_vtt_videoclip", "vtt_ft", "fine-tuned"),
        ("test_crosstask_zs_videoclip", "crosstask_zs", "zero-shot"),
        ("test_how2_demo_zs", "how2_demo_zs", "zero-shot"),
        ("mine", "mine", ""),
    ],
)
def test_the_name_of_a_yaml_contains_benchmark_and_setting(
    task: str, key: str, setting: str
) -> None:
    assert benchmark_key(task) == key
    assert setting_of(task) == setting


def row(
    data: str | None = "d" * 64, scored: int = 1000, missing: int = 0
) -> dict[str, object]:
    return {"data_fingerprint": data, "num_items": scored, "num_missing": missing}


def test_comparable_runs_have_no_notes() -> None:
    assert (
        comparability_notes(published_benchmarks()["vtt_zs"], {"a": row(), "b": row()})
        == []
    )
    assert comparability_notes(None, {"a": row(scored=7)}) == []


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            {"a": row(), "b": row("e" * 64)},
            "different data (a on dddddddddddd; b on eeeeeeeeeeee)",
        ),
        (
            {"a": row(scored=900, missing=100)},
            "a was scored on 900 of 1,000 test items",
        ),
        ({"a": row(scored=500)}, "a was scored on 500 items, Norton's are on 1,000"),
        ({"a": {}}, "a did not record the data it was scored on"),
    ],
)
def test_runs_that_are_not_comparable_are_reported(
    rows: dict[str, dict], says: str
) -> None:
    (note,) = comparability_notes(published_benchmarks()["vtt_zs"], rows)
    assert note.startswith("not comparable")
    assert says in note
