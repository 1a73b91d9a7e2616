"""`mmpt report` and `mmpt compare` with folders of training runs."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mmpt.cli import compare, report
from mmpt.cli.training_runs import COMPARISON, REPORT
from mmpt.config.run import LOCK_NAME
from mmpt.utils.lock import exclusive
from mmpt.utils.metrics_log import METRICS_LOG
from tests.support.sample_trainings import write_run


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a new folder, where `mmpt compare` writes its page."""
    monkeypatch.chdir(tmp_path)


def write_results(
    folder: Path, checkpoint: str, recall: float, fingerprint: str = "f"
) -> Path:
    """Writes a results file with one row. Returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {
        "checkpoint": checkpoint,
        "fingerprint": fingerprint,
        "task": "test_mine_zs",
        "metrics": {"RetrievalMetric": {"R1": recall}},
        "chance": {"RetrievalMetric": {"R1": 0.001}},
        "data_fingerprint": "d" * 64,
    }
    (folder / "results.json").write_text(json.dumps([row]))
    return folder


def test_a_report_has_a_summary_and_scores_and_its_path_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(Path("runs/mine"))
    write_results(Path("runs/mine/eval"), "runs/mine/checkpoint_best.pt", 0.123)
    # Scores of another run in the same folder, and of this run in another folder.
    write_results(Path("runs/mine/other"), "runs/other/checkpoint_best.pt", 0.456)
    write_results(Path("scores"), "runs/mine/checkpoint_last.pt", 0.789)
    assert report.main(["runs/mine", "scores"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "finished: epoch 3 of 3, 30 updates"
    assert lines[-1] == f"runs/mine/{REPORT}"
    recalls = [line for line in lines if "R@1" in line]
    assert recalls[0].split()[-3:] == ["0.1", "12.3", "78.9"]
    page = Path(lines[-1]).read_text()
    assert ">12.3<" in page
    assert ">78.9<" in page
    assert ">45.6<" not in page


def test_the_scores_of_a_moved_training_run_are_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    best = write_run(Path("moved")) / "checkpoint_best.pt"
    fingerprint = hashlib.sha256(best.read_bytes()).hexdigest()
    write_results(Path("moved/a"), "runs/mine/checkpoint_best.pt", 0.123, fingerprint)
    write_results(Path("moved/b"), "runs/mine/checkpoint_best.pt", 0.456)
    assert report.main(["moved", "--out", "new/page.html"]) == 0
    output = capsys.readouterr().out
    assert "12.3" in output
    assert "45.6" not in output
    assert output.endswith("\nnew/page.html\n")
    assert not Path("moved", REPORT).exists()


@pytest.mark.slow
def test_training_runs_are_compared_with_each_other_and_with_scores(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_run(Path("runs/one"))
    write_run(Path("runs/two"), offset=1, max_epoch=6)
    write_results(Path("runs/one"), "runs/one/checkpoint_best.pt", 0.123)
    write_results(Path("scores"), "runs/three/checkpoint_best.pt", 0.456)
    runs = ["runs/one", "runs/two", "runs/one/"]
    assert compare.main([*runs, "scores"]) == 0
    output = capsys.readouterr().out
    titles = ["chance", "one", "three"]
    assert any(line.split() == titles for line in output.splitlines())
    assert "best validation loss" in output
    assert "fairseq.optimization.max_epoch" in output
    assert output.endswith(f"\n{COMPARISON}\n")
    assert ">45.6<" in Path(COMPARISON).read_text()

    assert compare.main([*runs, "--json", "--out", "other.html"]) == 0
    scores, trainings = json.loads(capsys.readouterr().out)
    assert list(scores["runs"]) == ["one"]
    assert trainings["benchmark"] == "training"
    assert trainings["runs"]["two"]["best_valid_loss"] == 6
    assert trainings["differences"] == {
        "fairseq.optimization.max_epoch": {"one": "3", "two": "6"}
    }
    assert trainings["page"] == "other.html"
    assert Path("other.html").exists()

    assert compare.main([*runs, "--markdown"]) == 0
    assert "| best validation loss | 5 | 6 |" in capsys.readouterr().out


def test_training_runs_may_differ_in_state_metrics_and_folder(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two runs have the same name. One of these is running, has one term, and was not refreshed."""
    write_run(Path("one/run"))
    running = write_run(Path("two/run"), offset=1, num_epochs=1)
    (running / "retri" / "hardness.jsonl").unlink()
    log = running / METRICS_LOG
    log.write_text(log.read_text().replace('"video_paragraph": 0.5, ', ""))
    write_run(Path("other"), offset=2)
    with exclusive(running / LOCK_NAME, "training"):
        assert compare.main(["one/run", "two/run", "other", "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "|  | one/run | two/run | other |",
        "| state | finished | running | finished |",
        "| updates | 30 | 10 | 30 |",
        "| final clip-caption | 1.5 | 4.5 | 3.5 |",
        "| final video-paragraph | 0.5 | - | 0.5 |",
        "| best validation loss | 5 | 7 | 7 |",
        "| coverage, % | 63 | - | 63 |",
        "| refresh, seconds | 13 | - | 13 |",
    ):
        assert line in lines
    page = Path(COMPARISON).read_text()
    for line in (
        "one/run, validation: 6 at 30",
        "two/run, validation: 7 at 10",
        "other, validation: 7 at 20",
    ):
        assert line in page  # texts of the curves in the chart of the loss
    assert "running: epoch 1 of 3, 10 updates, about 7 minutes left (two/run)" in page


def test_a_training_run_without_metrics_is_reported_and_left_out(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_run(Path("mine"))
    Path("new").mkdir()
    Path("new/config.yaml").write_text("{}")
    assert compare.main(["new", "mine", "--markdown"]) == 0
    assert "|  | mine |" in capsys.readouterr().out.splitlines()
    (warning,) = caplog.messages
    assert warning.startswith("left out: new/metrics.jsonl: holds no metrics.")


def test_results_alone_do_not_give_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    write_results(Path("scores"), "runs/mine/checkpoint_best.pt", 0.123)
    # Such a file may come from `save_pretrained`.
    Path("scores/config.yaml").write_text("{}")
    assert compare.main(["scores"]) == 0
    assert "training" not in capsys.readouterr().out
    assert not Path(COMPARISON).exists()


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("report", "empty", "empty: not the folder of a training run"),
        ("report", "new", "metrics.jsonl: holds no metrics"),
        ("report", "damaged", "metrics.jsonl, line 1: must be a JSON object"),
        ("report", "mine missing", "missing: no such file. Name results files"),
        ("report", "mine scores", "scores: must hold a score of a checkpoint in mine"),
        ("report", "mine other", "Compare them: mmpt compare mine other"),
        ("report", "mine --videos v", "belong to the report of an evaluation"),
        ("report", "mine --device cpu", "belong to the report of an evaluation"),
        ("report", "some.yaml scores", "some.yaml is not a training folder"),
        ("compare", "mine empty", "results.json: no such file. Name results files"),
        ("compare", "new", "metrics.jsonl: holds no metrics"),
        ("compare", "damaged mine", "metrics.jsonl, line 1: must be a JSON object"),
        ("compare", "mine mine/config.yaml", "config.yaml: not a results file"),
        (
            "compare",
            "scores --out page.html",
            "`--out` names the page about training runs",
        ),
    ],
)
def test_a_mistake_gives_one_clear_error(
    capsys: pytest.CaptureFixture[str], command: str, arguments: str, message: str
) -> None:
    write_run(Path("mine"))
    write_run(Path("other"))
    write_run(Path("damaged"))
    Path("damaged/metrics.jsonl").write_text("broken\n")
    Path("empty").mkdir()
    Path("new").mkdir()
    Path("new/config.yaml").write_text("{}")
    write_results(Path("scores"), "runs/three/checkpoint_best.pt", 0.456)
    main = {"report": report.main, "compare": compare.main}[command]
    assert main(arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("error: ") == 1
    assert message in captured.err
    assert not list(Path().rglob("*.html"))
