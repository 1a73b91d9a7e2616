"""Curves come out of the event files as they went in, whatever state a crash left the files in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboardX import SummaryWriter

from mmpt.reporting.training import hardness_charts, loss_charts, read_curves, read_hardness
from tests.reporting.made_training import STEPS, term, write_training


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_training(tmp_path)
    curves = read_curves(tmp_path, "train_inner")
    assert set(curves) == {"clip_caption", "video_paragraph", "loss", "temperature", "wps"}
    assert curves["clip_caption"].steps == list(STEPS)
    assert curves["clip_caption"].values == pytest.approx(
        [term(step) for step in STEPS], rel=1e-6
    )  # float32 in the file
    assert read_curves(tmp_path, "valid")["loss"].steps == [50, 100]
    assert read_curves(tmp_path, "nothing") == {}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, share: float) -> None:
    write_training(tmp_path)
    (file,) = tmp_path.glob("run_0/train_inner/events*")
    whole = read_curves(tmp_path, "train_inner")["loss"]
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    steps = read_curves(tmp_path, "train_inner").get("loss", whole._replace(steps=[])).steps
    assert steps == whole.steps[: len(steps)]
    assert (len(steps) > 0) == (share > 0.1)


@pytest.mark.parametrize("garbage", [b"not an event file at all", b"\xff" * 64, b"\x05" + b"\0" * 40])
def test_garbage_is_no_curve(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "run_0" / "valid").mkdir(parents=True)
    (tmp_path / "run_0" / "valid" / "events.out.tfevents.1.a").write_bytes(garbage)
    assert read_curves(tmp_path, "valid") == {}


def test_a_resumed_run_replaces_what_it_repeats(tmp_path: Path) -> None:
    write_training(tmp_path)
    with SummaryWriter(str(tmp_path / "run_1" / "train_inner")) as writer:
        for step in (60, 70):
            writer.add_scalar("loss", -1.0, step)
    loss = read_curves(tmp_path, "train_inner")["loss"]
    assert loss.steps == [10, 20, 30, 40, 50, 60, 70]
    assert loss.values[-2:] == [-1.0, -1.0]


def test_hardness_is_the_last_of_each_epoch(tmp_path: Path) -> None:
    write_training(tmp_path)
    log = tmp_path / "retri" / "hardness.jsonl"
    with log.open("a") as file:
        file.write('{"epoch": 2, "mean_cosine": 0.99, "random_mean_cosine": 0.5}\n[1]\n{"epoch": 4, "mean_co')
    rows = read_hardness(tmp_path)
    assert [(row["epoch"], round(row["mean_cosine"], 6)) for row in rows] == [(1, 0.7), (2, 0.99), (3, 0.9)]
    assert read_hardness(tmp_path / "elsewhere") == []


def test_charts_are_of_what_changes(tmp_path: Path) -> None:
    assert loss_charts(tmp_path) == hardness_charts(tmp_path) == []
    write_training(tmp_path)
    titles = [chart.partition('aria-label="')[2].partition('"')[0] for chart in loss_charts(tmp_path)]
    assert titles == ["loss", "clip-caption", "video-paragraph"]  # neither the fixed temperature nor the speed
    assert len(hardness_charts(tmp_path)) == 1


def test_one_term_is_not_drawn_twice(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "run_0" / "train_inner")) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss", step / 7, step)
            writer.add_scalar("clip_caption", step / 7, step)
    assert len(loss_charts(tmp_path)) == 1
