"""Tests of training curves: they are read as they were logged, also after a killed run."""

from pathlib import Path

import pytest

from mmpt.reporting.training import (
    hardness_charts,
    loss_charts,
    read_curves,
    read_hardness,
)
from mmpt.utils.metrics_log import MetricsLog
from tests.support.sample_runs import STEPS, term, write_training


def test_curves_are_read_as_they_were_logged(tmp_path: Path) -> None:
    write_training(tmp_path)
    curves = read_curves(tmp_path, "train")
    assert set(curves) == {"clip_caption", "video_paragraph", "loss", "temperature"}
    assert curves["clip_caption"] == {step: term(step) for step in STEPS}
    assert list(read_curves(tmp_path, "valid")["loss"]) == [50, 100]
    assert (
        read_curves(tmp_path, "nothing")
        == read_curves(tmp_path / "elsewhere", "train")
        == {}
    )


def test_values_that_are_not_finite_are_left_out_of_curves(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for update, loss in ((1, 2.0), (2, float("nan")), (3, float("inf")), (4, 1.0)):
        log.append("train", 1, update, {"loss": loss})
    assert read_curves(tmp_path, "train") == {"loss": {1: 2.0, 4: 1.0}}


def test_the_last_hardness_of_each_epoch_is_read(tmp_path: Path) -> None:
    write_training(tmp_path)
    log = tmp_path / "retri" / "hardness.jsonl"
    with log.open("a") as file:
        file.write('{"epoch": 2, "mean_cosine": 0.99}\n[1]\n{"epoch": 4, "mean_co')
    rows = read_hardness(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["mean_cosine"] for row in rows] == pytest.approx([0.7, 0.99, 0.9])
    assert read_hardness(tmp_path / "elsewhere") == []


def test_only_values_that_change_are_drawn(tmp_path: Path) -> None:
    assert loss_charts(tmp_path) == hardness_charts(tmp_path) == {}
    write_training(tmp_path)
    # The fixed temperature and the speed are left out.
    assert list(loss_charts(tmp_path)) == ["loss", "clip-caption", "video-paragraph"]
    assert len(hardness_charts(tmp_path)) == 1


def test_the_loss_is_not_drawn_if_it_equals_its_only_term(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        value = step / 7
        terms = {"loss": round(value, 3), "clip_caption": round(value, 4)}
        log.append("train", 1, step, terms)
    assert len(loss_charts(tmp_path)) == 1
