"""An experiment on a tiny corpus, with the real commands."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments import arms, command
from experiments.arms import ALL_WEIGHTS, START, Arm, Experiment
from experiments.control import LADDER
from experiments.corpora import CORPORA, Corpus
from experiments.runner import Commands
from experiments.tables import MAIN, OTHER
from tests.support.forked import run_forked

TINY = Corpus("tiny", {"num_videos": 16, "num_val": 4, "num_tasks": 2})
SMALL_RUN = {
    "fairseq.optimization.max_epoch": 1,
    "dataset.num_video_per_batch": 4,
    "num_cands": 4,
    "centroids": 1,
}


def run_in_fork(_: Commands, command: Sequence[str], log: Path) -> None:
    """Runs a command of `mmpt` in a fork, which does not import everything again."""
    python_option, module, *arguments = command
    assert (python_option, module) == ("-m", "mmpt")
    done = run_forked("mmpt.cli.main:main", arguments)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr)
    assert done.returncode == 0, log.read_text()


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment with VideoCLIP, and with a run that starts from it, on 16 videos."""
    monkeypatch.setitem(CORPORA, "tiny", TINY)
    monkeypatch.setattr(Commands, "__call__", run_in_fork)
    monkeypatch.setattr(arms, "COMMON", {**arms.COMMON, **SMALL_RUN})
    pooled = Arm("C", "C", {**ALL_WEIGHTS, **LADDER["C"][1]})
    return Experiment("tiny", "Does it run?", lambda corpus: [START, pooled], (TINY,))


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_an_experiment_runs_and_is_not_repeated(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, folder = tmp_path / "results.jsonl", tmp_path / "runs"
    options = ["--seeds", "3", "--folder", str(folder), "--results", str(results)]
    assert command.main([experiment], None, [*options, "--plan"]) == 0
    assert not results.exists()
    assert command.main([experiment], None, options) == 0
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert sorted(row["name"] for row in rows) == ["C", "videoclip"]
    for row in rows:
        for number in (*MAIN, *OTHER):
            assert 0 <= number.of(row) <= 100
        assert row["seed"] == 3
        assert bool(row["curves"]) == (row["name"] == "videoclip")
    (start,) = (row for row in rows if row["name"] == "videoclip")
    starts = {row["name"]: row.get("start") for row in rows}
    assert starts["videoclip"] is None
    assert starts["C"] is not None
    trained = [row["metrics"]["Calibrated"]["DTW-constant"] for row in rows]
    assert len(set(trained)) == 2  # the runs have different weights
    # Only the checkpoint that others start from is kept, and no predictions.
    kept = [path.parent.name for path in folder.rglob("checkpoint*.pt")]
    assert kept == [f"videoclip-{start['run']}"]
    assert not list(folder.rglob("*.npz"))
    # If all files are lost, the results still show which runs are finished.
    shutil.rmtree(folder)
    capsys.readouterr()
    assert command.main([experiment], None, options) == 0
    assert "in total: 0 steps" in capsys.readouterr().out
    assert not folder.exists()
