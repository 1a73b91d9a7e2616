"""Charts show the curves that change, for one training run or several."""

import re
from pathlib import Path

from mmpt.reporting.figures import COLOURS
from mmpt.reporting.training_runs import read_training_runs, summary_of
from mmpt.reporting.training_runs.charts import (
    colour_of,
    loss_charts,
    retrieval_charts,
    speed_charts,
)
from mmpt.utils.metrics_log import MetricsLog
from tests.support.sample_trainings import write_run


def test_a_run_has_charts_of_everything_that_changes(tmp_path: Path) -> None:
    trainings = read_training_runs([write_run(tmp_path)])
    losses = loss_charts(trainings)
    # The accuracy and one term have the same value in all lines.
    assert list(losses) == ["loss", "clip-caption", "learning rate"]
    assert ">training</text>" in losses["loss"]
    assert ">validation</text>" in losses["loss"]
    assert "validation: 5 at 20" in losses["loss"]
    assert ">training</text>" not in losses["learning rate"]
    assert list(speed_charts(trainings)) == ["memory in GB"]
    batches = retrieval_charts(trainings)
    assert list(batches) == [
        "mean cosine of two videos",
        "fraction of videos in the epoch",
        "seconds of the refresh",
    ]
    assert "in a batch: 0.8 at 3" in batches["mean cosine of two videos"]


def test_the_hardness_log_of_an_older_version_has_no_seconds(tmp_path: Path) -> None:
    folder = write_run(tmp_path)
    log = folder / "retri" / "hardness.jsonl"
    log.write_text(re.sub(r',"refresh_s":[\d.]+', "", log.read_text()))
    (training,) = read_training_runs([folder])
    assert "seconds of the refresh" not in retrieval_charts([training])
    figures = summary_of(training)
    assert "refresh_s" not in figures
    assert figures["coverage_percent"] == 63


def test_several_runs_have_the_same_charts_and_different_colours(
    tmp_path: Path,
) -> None:
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two", offset=1)
    chart = loss_charts(read_training_runs([one, two]))["loss"]
    for colour in COLOURS[:2]:
        drawn = rf"stroke: var\(--c\d, {colour}\)"
        dashes = re.findall(rf'style="[^"]*{drawn}[^"]*"', chart)
        assert any("stroke-dasharray" in style for style in dashes)
        assert any("stroke-dasharray" not in style for style in dashes)
    assert "two, validation: 6 at 20" in chart
    assert ">validation</text>" not in chart  # the legend is above the charts


def test_many_runs_have_different_colours() -> None:
    assert len({colour_of(place) for place in range(12)}) == 12


def test_runs_without_a_refresh_or_rates_have_fewer_charts(tmp_path: Path) -> None:
    folder = write_run(tmp_path, num_epochs=1)
    (folder / "retri" / "hardness.jsonl").unlink()
    line = '{"split": "train", "epoch": 1, "update": 1, "time": 1.0, "loss": 2.0}\n'
    (folder / "metrics.jsonl").write_text(line)
    trainings = read_training_runs([folder])
    assert loss_charts(trainings) == speed_charts(trainings) == {}
    assert retrieval_charts(trainings) == {}


def test_the_loss_is_not_drawn_if_it_equals_its_only_term(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0)
    for step in (1, 2, 3):
        value = step / 7
        terms = {"loss": round(value, 3), "clip_caption": round(value, 4)}
        log.append("train", 1, step, terms)
    assert list(loss_charts(read_training_runs([tmp_path]))) == ["clip-caption"]
