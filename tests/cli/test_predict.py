"""`mmpt predict` on the small corpus: the checkpoints that it scores, its files and its output."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpt.cli import predict, scoring
from mmpt.cli.predict import Tables, add_table
from mmpt.config import EvalConfig, RunConfig, load_config
from mmpt.errors import ConfigError
from tests.support.jobs import evaluation


def call(*arguments: object) -> int:
    """Runs `mmpt predict` on the CPU and returns the exit code."""
    words = [str(argument) for argument in arguments]
    return predict.main([*words, "--device", "cpu"])


def rows_of(results: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((results / "results.json").read_text())
    return rows


@pytest.mark.parametrize("save_path", ["run/results", "run/"])
def test_which_checkpoints_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_path: str
) -> None:
    def chosen(*named: str, every: bool) -> list[str]:
        fairseq = {"common_eval": {"path": [*named]}}
        config = RunConfig(
            path="a.yaml", eval=EvalConfig(save_path=save_path), fairseq=fairseq
        )
        assert "every checkpoint*.pt in run (" in scoring.selection_rule(config)
        return [str(path) for path in scoring.checkpoints_to_score(config, every)]

    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    names = ["run/checkpoint2.pt", "run/checkpoint_best.pt", "run/checkpoint_last.pt"]
    other = "run/other.pt"
    for name in (*names, other):
        Path(name).touch()
    assert chosen(other, names[0], every=False) == [other, names[0]]
    absolute = str(tmp_path / names[1])
    assert chosen(absolute, other, every=True) == [*names, other]
    assert chosen(every=True) == names
    with pytest.raises(ConfigError, match=r"`fairseq.common_eval.path` must name"):
        chosen(every=False)


def test_predictions_of_different_checkpoints_have_different_names() -> None:
    for files, names in (
        (("a/c1.pt", "a/c2.pt"), ["vtt-a-c1", "vtt-a-c2"]),
        (("/x/a/c.pt", "/y/a/c.pt"), ["vtt-x-a-c", "vtt-y-a-c"]),
    ):
        assert scoring.prediction_names("vtt", [Path(file) for file in files]) == names


def test_all_checkpoints_are_scored_and_the_best_is_printed(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--all-checkpoints", "--markdown", "--save-predictions", "--no-report"]
    assert call(scored, *flags) == 0
    lines = capsys.readouterr().out.splitlines()
    run = scored.parent / "run"
    row_a, row_b = rows_of(run / "results")
    assert Path(row_a["checkpoint"]).name == "checkpoint_a.pt"
    assert Path(row_b["checkpoint"]).name == "checkpoint_b.pt"
    recall_a = row_a["metrics"]["RetrievalMetric"]["R1"]
    recall_b = row_b["metrics"]["RetrievalMetric"]["R1"]
    assert lines[0] == "|  | chance | checkpoint_a | checkpoint_b |"
    assert f"| {100 * recall_a:.1f} | {100 * recall_b:.1f} |" in lines[2]
    best = "b" if recall_b > recall_a else "a"
    value = max(recall_a, recall_b)
    assert (
        lines[-1] == f"best: {run}/checkpoint_{best}.pt (RetrievalMetric {value:.4f})"
    )
    assert lines[-2].startswith(f"{scored}: scored every checkpoint*.pt in {run} ")
    assert "on this test set itself" in lines[-2]
    with np.load(run / "results" / "scores-run-checkpoint_a.npz") as arrays:
        # All texts have the same vector. Measured difference: 0.
        spread = np.ptp(arrays["pooled_text"], axis=0)
        assert spread.max() < 1e-5
        num_items = len(arrays["video_id"])
        assert arrays["scores"].shape == (num_items, num_items)


def test_by_default_one_checkpoint_is_scored_and_a_plain_table_printed(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(scored, "--no-report") == 0
    output = capsys.readouterr().out
    first_line = output.splitlines()[0]
    assert first_line.split() == ["chance", "run"]
    assert "best:" not in output
    results = scored.parent / "run" / "results"
    assert len(rows_of(results)) == 1
    assert {path.name for path in results.glob("[!.]*")} == {"results.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("projects/retri/norton/how2_demo.yaml", "a training config cannot be scored"),
        ("{scored} --device foo", "--device foo: not a device of this machine"),
        ("{scored} --device meta", "--device meta: not a device of this machine"),
        ("{scored} --videos /no/such", "/no/such: no such folder"),
        ("{scored} none.yaml", "none.yaml"),  # all YAMLs are read before scoring begins
        ("--taskconfig none.yaml", "none.yaml"),
        ("", "name at least one evaluation YAML"),
    ],
)
def test_mistakes_end_with_2(
    scored: Path, arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main(arguments.format(scored=scored).split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert not (scored.parent / "run" / "results").exists()


# ---- several evaluations


def test_evaluations_of_the_same_checkpoints_with_other_metrics_share_a_table() -> None:
    tables: Tables = []
    for checkpoint, metric in (("x", "A"), ("x", "B"), ("x", "A"), ("y", "C")):
        results = {metric: {"a": 1.0}}
        add_table(tables, [checkpoint], {"chance": results, "run": results})
    found = [(*checkpoints, *columns["run"]) for checkpoints, columns in tables]
    assert found == [("x", "A", "B"), ("x", "A"), ("y", "C")]


@pytest.fixture
def together(corpus: Path, scored: Path) -> list[str]:
    """The YAMLs of the demo's evaluations, for the small corpus and a random checkpoint."""
    (checkpoint,) = load_config(scored).checkpoint_paths
    paths = [str(scored)]
    for name, truth in (
        ("bg", "test_path={}/val_clips.json"),
        ("steps", "test_path={}/true_steps.json"),
        ("align", "anno_path={}/test_alignment.json"),
    ):
        yaml = f"projects/retri/norton/test_how2_demo_{name}_zs.yaml"
        folder = f"{scored.parent}/run/results/{name}"
        config = evaluation(yaml, corpus, truth.format(corpus), checkpoint, folder)
        path = scored.parent / f"{name}.yaml"
        path.write_text(json.dumps(config.to_dict()))
        paths.append(str(path))
    return paths


@pytest.mark.slow
def test_the_demos_evaluations_print_one_table(
    together: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*together, "--no-report") == 0
    output = capsys.readouterr().out
    assert output.count("chance") == 1
    for start in (
        "clip, text to video",
        "full video, DTW",
        "full video with background",
        "step segmentation",
        "alignment",
    ):
        assert f"\n{start}" in output
    for path in together:
        folder = load_config(path).eval.save_path or ""
        (row,) = rows_of(Path(folder))
        assert row["metrics"]


def test_results_are_printed_even_if_a_later_evaluation_fails(
    together: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    good, *_, bad = together
    values = json.loads(Path(bad).read_text())
    values["dataset"]["anno_path"] = values["dataset"]["bert_name"] + "/config.json"
    Path(bad).write_text(json.dumps(values))
    assert call(good, bad, "--no-report") == 2
    captured = capsys.readouterr()
    assert "clip, text to video, R@1" in captured.out
    assert "must be HTM-Align's file" in captured.err
