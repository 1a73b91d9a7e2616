"""The figures of training runs are computed from their logs, and differing settings are found."""

import json
from pathlib import Path

import pytest

from mmpt.reporting.training_runs import (
    difference_rows,
    read_training_runs,
    summary_of,
    summary_rows,
)
from tests.support.sample_trainings import (
    CLIPS_PER_S,
    SECONDS_PER_EPOCH,
    loss,
    write_run,
)


def test_the_figures_of_a_training_run(tmp_path: Path) -> None:
    (training,) = read_training_runs([write_run(tmp_path)])
    assert summary_of(training) == pytest.approx(
        {
            "state": "finished",
            "epoch": 3,
            "updates": 30,
            "final_loss": loss(30),
            "final_clip_caption": loss(30) - 0.5,
            "final_video_paragraph": 0.5,
            "final_accuracy": 0.1,
            "best_valid_loss": 5,
            "best_valid_update": 20,
            "clips_per_s": CLIPS_PER_S,
            "data_wait_percent": 25,
            "memory_gb": 1.3,
            "minutes_per_epoch": SECONDS_PER_EPOCH / 60,
            "minutes": 3 * SECONDS_PER_EPOCH / 60,
            "cosine_in_batch": 0.8,
            "cosine_at_random": 0.3,
            "coverage_percent": 63,
            "refresh_s": 13,
        }
    )


def test_the_mean_time_excludes_an_epoch_in_progress(tmp_path: Path) -> None:
    write_run(tmp_path, max_epoch=9)
    line = {"split": "train", "epoch": 4, "update": 32, "time": 1, "bsz": 64}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line | {"clips_per_s": 64}) + "\n")
    (training,) = read_training_runs([tmp_path])
    figures = summary_of(training)
    assert figures["minutes_per_epoch"] == pytest.approx(SECONDS_PER_EPOCH / 60)
    assert figures["minutes"] == pytest.approx((3 * SECONDS_PER_EPOCH + 2) / 60)


def test_the_best_validation_is_chosen_by_the_metric_in_the_settings(
    tmp_path: Path,
) -> None:
    choice = {
        "best_checkpoint_metric": "clip_caption",
        "maximize_best_checkpoint_metric": True,
    }
    write_run(tmp_path, fairseq={"checkpoint": choice})
    (training,) = read_training_runs([tmp_path])
    figures = summary_of(training)
    assert figures["best_valid_clip_caption"] == 5
    assert figures["best_valid_update"] == 10
    assert "best_valid_loss" not in figures


def test_unknown_figures_are_shown_as_dashes(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    (two / "retri" / "hardness.jsonl").unlink()
    lines = (two / "metrics.jsonl").read_text().splitlines(keepends=True)
    trained = [line for line in lines if '"train"' in line]
    (two / "metrics.jsonl").write_text("".join(trained))
    rows = {row[0]: row[1:] for row in summary_rows(read_training_runs([two, one]))}
    assert rows["best validation loss"] == ["-", "5"]
    assert rows["coverage, %"] == ["-", "63"]
    assert rows["refresh, seconds"] == ["-", "13"]
    assert rows["final clip-caption"] == ["1.5", "1.5"]


def test_settings_that_differ_are_found(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", num_cands=8, eval={"save_path": "a"})
    two = write_run(tmp_path / "two", max_epoch=6, num_cands=8, recall=0.9)
    # Folders of the runs are left out.
    assert difference_rows(read_training_runs([one, two])) == [
        ["fairseq.optimization.max_epoch", "3", "6"],
        ["recall", "not set", "0.9"],
    ]
    assert difference_rows(read_training_runs([one])) == []
    three = write_run(tmp_path / "three", num_cands=8)
    (three / "config.yaml").unlink()
    rows = difference_rows(read_training_runs([one, two, three]))
    assert rows[0] == ["fairseq.optimization.max_epoch", "3", "6", "-"]
