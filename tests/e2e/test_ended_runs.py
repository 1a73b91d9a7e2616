"""Runs that end early: by a NaN loss, which stops a run or is skipped, or by a limit.

A run that has ended does not train again when it is started again.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.metrics_log import read_metrics
from tests.support.forked import run_forked

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def runs(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The folder of the runs, and the exit codes and differences of runs."""
    folder = tmp_path_factory.mktemp("ended")
    done = run_forked("tests.support.ended_runs:main", [corpus, folder])
    assert (folder / "results.json").exists(), done.stderr[-3000:]
    return folder, json.loads((folder / "results.json").read_text())


def report(save_dir: Path, update: int, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (save_dir / f"nonfinite_u{update}_r{rank}.json").read_text()
    )
    return content


def test_training_stops_and_reports_the_videos(
    runs: tuple[Path, dict[str, Any]], corpus: Path
) -> None:
    folder, codes = runs[0], runs[1]["codes"]
    assert codes["stop"][1] == 2
    log = (folder / "stop.log").read_text()
    assert "error: update 3, rank 1: loss: clip_caption is nan" in log
    assert "Traceback" not in log
    content = report(folder / "stop", 3, 1)
    assert (content["update"], content["rank"]) == (3, 1)
    listed = (corpus / "how2_s3d_train.lst").read_text().split()
    assert len(set(content["videos"])) == 4
    assert set(content["videos"]) <= set(listed)
    # These videos are a batch of the plan.
    plan = json.loads((folder / "stop/retri/plan_e1.json").read_text())
    assert sorted(content["videos"]) in [sorted(batch) for batch in plan["batches"]]


@pytest.mark.parametrize("name", ["skip", "gathered"])
def test_a_skipped_update_is_skipped_in_all_processes(
    name: str, runs: tuple[Path, dict[str, Any]]
) -> None:
    """The weights equal the weights of a run whose optimizer leaves the update out."""
    folder, codes = runs[0], runs[1]["codes"]
    assert codes[name] == [0, 0]
    assert report(folder / name, 3, 1)["rank"] == 1
    assert (
        "skipped an update whose loss is not finite (1 of at most 10)"
        in (folder / f"{name}.log").read_text()
    )
    updates = [
        row["update"] for row in read_metrics(folder / name) if row["split"] == "train"
    ]
    assert updates == [1, 2, 3, 4]
    if name == "skip":
        skipped, wanted = (
            load_checkpoint(folder / run / "checkpoint_last.pt")
            for run in (name, "left out")
        )
        assert all(
            torch.equal(value, wanted["model"][key])
            for key, value in skipped["model"].items()
        )


@pytest.mark.parametrize("name", ["bounded", "continued"])
def test_the_number_of_skipped_updates_is_bounded(
    name: str, runs: tuple[Path, dict[str, Any]]
) -> None:
    folder, codes = runs[0], runs[1]["codes"]
    assert codes[name] == [2]
    log = (folder / f"{name}.log").read_text()
    assert (
        "error: the loss was not finite in 2 updates, but `loss.max_skipped` allows 1"
        in log
    )
    for update in (2, 4):
        assert report(folder / name, update, 0)["update"] == update


def test_a_run_out_of_time_saves_its_state_and_continues_with_more_time(
    runs: tuple[Path, dict[str, Any]],
) -> None:
    folder, results = runs
    assert [code for name, code in results["codes"].items() if "time" in name] == [
        [0]
    ] * 3
    log = (folder / "time.log").read_text()
    assert log.count("the training run has taken `stop_time_hours`") == 1
    assert log.count("this run has ended: there is nothing left to train") == 1
    assert results["different"]["time"] == []


@pytest.mark.parametrize(("name", "last"), [("max_update", 3), ("early stop", 16)])
def test_a_finished_run_makes_no_update_when_it_is_started_again(
    name: str, last: int, runs: tuple[Path, dict[str, Any]]
) -> None:
    folder, results = runs
    assert results["codes"][name] == [0]
    assert read_metrics(folder / name)[-1]["update"] == last
    assert results["different"][name] == []
