"""Several evaluations in one process: one start, one table where it makes sense, nothing lost by a
late failure.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from mmpt.cli import launch, predict
from mmpt.cli.predict import Table, join_tables
from mmpt.config import load_config
from tests.jobs import ROOT, SCORES

ALIGNMENT = "projects/retri/norton/test_how2_demo_align_zs.yaml"
STEPS = "projects/retri/norton/test_how2_demo_steps_zs.yaml"
BACKGROUND = "projects/retri/norton/test_how2_demo_bg_zs.yaml"


def table(metric: str, value: float, *checkpoints: str) -> Table:
    columns = {name: {metric: {"a": value}} for name in ("chance", *checkpoints)}
    return Table(columns, checkpoints, "")


def test_other_metrics_of_the_same_checkpoints_are_one_table() -> None:
    (joined,) = join_tables([table("A", 1, "x", "y"), table("B", 2, "x", "y")])
    assert joined == {name: {"A": {"a": 1}, "B": {"a": 2}} for name in ("chance", "x", "y")}


@pytest.mark.parametrize("second", [table("A", 2, "x"), table("B", 2, "z")])
def test_the_same_metric_or_other_checkpoints_are_tables_of_their_own(second: Table) -> None:
    first = table("A", 1, "x")
    assert list(join_tables([first, second])) == [first.columns, second.columns]


def test_no_table_of_nothing() -> None:
    assert list(join_tables([])) == []


@pytest.fixture
def together(corpus: Path, scored: Path) -> list[str]:
    """The demo's evaluations on the small corpus and a random checkpoint."""
    paths = [str(scored)]
    checkpoint = load_config(scored).checkpoint_paths[0]
    for name, truth in (
        (BACKGROUND, "test_path=val_clips"),
        (STEPS, "test_path=true_steps"),
        (ALIGNMENT, "anno_path=test_alignment"),
    ):
        key, _, file = truth.partition("=")
        overrides = [
            f"dataset.bert_name={corpus}/bert",
            f"dataset.vfeat_dir={corpus}/feat",
            f"dataset.{key}={corpus}/{file}.json",
            f"eval.save_path={scored.parent}/run/results/{Path(name).stem}",
            f"fairseq.common_eval.path={checkpoint}",
            "fairseq.dataset.num_workers=0",
        ]
        path = scored.parent / Path(name).name
        path.write_text(json.dumps(load_config(name, overrides).to_dict()))
        paths.append(str(path))
    return paths


def test_the_demos_evaluations_print_one_table(
    together: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([*together, "--device", "cpu", "--no-report"]) == 0
    said = capsys.readouterr().out
    assert said.count("chance") == 1
    starts = (
        "clip, text to video",
        "full video, DTW",
        "full video with background",
        "step segmentation",
        "alignment",
    )
    for start in starts:
        assert any(line.startswith(start) for line in said.splitlines())
    for path in together:
        folder = load_config(path).eval.save_path
        assert folder is not None
        (row,) = json.loads((Path(folder) / "results.json").read_text())
        assert row["metrics"]


def test_what_was_scored_is_printed_though_a_later_evaluation_fails(
    together: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    values = json.loads(Path(together[3]).read_text())
    values["dataset"]["anno_path"] = values["dataset"]["bert_name"] + "/config.json"
    Path(together[3]).write_text(json.dumps(values))
    assert predict.main([together[0], together[3], "--device", "cpu", "--no-report"]) == 2
    said = capsys.readouterr()
    assert "clip, text to video, R@1" in said.out
    assert "must be HTM-Align's file" in said.err


def test_every_yaml_is_read_before_the_first_is_scored(
    together: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([together[0], "none.yaml"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "none.yaml" in said.err


def launched(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert launch.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("launching ")]


def test_evaluations_that_follow_one_another_share_a_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = launched([f"{SCORES},{ALIGNMENT}", "--dryrun"], capsys)
    assert command == ["-m", "mmpt.cli.predict", SCORES, ALIGNMENT]


def test_overrides_are_kept_per_evaluation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "projects").symlink_to(ROOT / "projects")
    overrides = ["fairseq.dataset.num_workers=0", "eval.save_path=here"]
    monkeypatch.setattr(launch.preflight, "check_data", lambda config: None)
    monkeypatch.setattr(launch, "run_all", lambda commands, env, grace_s: 0)
    (command,) = launched([f"{SCORES},{ALIGNMENT}", *overrides], capsys)
    assert [load_config(path).metric[0] for path in command[2:]] == [
        "RetrievalMetric",
        "How2AlignMetric",
    ]
    assert {load_config(path).num_workers for path in command[2:]} == {0}
