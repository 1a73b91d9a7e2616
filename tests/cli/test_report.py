"""The report of an evaluation, and `mmpt report`, which writes it again."""

import json
from pathlib import Path

import pytest
import torch

from mmpt.cli import predict, report
from tests.support.jobs import VIDEOCLIP
from tests.support.paths import ROOT
from tests.support.videos import Clip, regular_times, write_video


def call_predict(scored: Path, *options: str) -> int:
    return predict.main([str(scored), "--device", "cpu", *options])


def call_report(scored: Path, *options: str) -> int:
    return report.main([str(scored), "--device", "cpu", *options])


@pytest.mark.slow
def test_scoring_writes_a_report_of_all_checkpoints(scored: Path) -> None:
    assert call_predict(scored, "--all-checkpoints") == 0
    results = scored.parent / "run" / "results"
    html = (results / "scores-report.html").read_text()
    rows = json.loads((results / "results.json").read_text())
    for row in rows:
        recall = row["metrics"]["RetrievalMetric"]["R5"]
        assert f">{100 * recall:.1f}</td>" in html
    titles = (
        "Retrieval gallery|Worst failures|Whole videos mistaken|Alignment of sentences"
    )
    for title in titles.split("|"):
        assert title in html
    assert len(html) < 300_000


@pytest.mark.slow
def test_a_report_is_written_again_with_key_frames(
    scored: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_predict(scored, "--all-checkpoints", "--no-report") == 0
    capsys.readouterr()
    videos = scored.parent / "videos"
    videos.mkdir()
    times, small = regular_times(20, 2), Clip(width=64, height=48)
    truth = json.loads((corpus / "val_clips.json").read_text())
    for video in truth["videos"]:
        write_video(videos / f"{video['id']}.mp4", times, small)
    out = scored.parent / "new.html"
    assert call_report(scored, "--videos", str(videos), "--out", str(out)) == 0
    assert capsys.readouterr().out.strip() == str(out)
    html = out.read_text()
    assert html.count("data:image/jpeg") > 20
    assert "checkpoint_a" in html
    assert "checkpoint_b" in html
    assert not (scored.parent / "run" / "results" / "scores-report.html").exists()


@pytest.mark.slow
def test_unscored_or_changed_checkpoints_are_an_error(
    scored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_report(scored) == 2
    error = capsys.readouterr().err
    assert f"no such file. Score the checkpoint first: mmpt predict {scored}" in error
    assert call_predict(scored, "--no-report") == 0
    checkpoint = scored.parent / "run" / "checkpoint_b.pt"
    state = torch.load(checkpoint, weights_only=True)
    first = next(iter(state))
    torch.save(state | {first: state[first] + 1}, checkpoint)
    assert call_report(scored) == 2
    error = capsys.readouterr().err
    assert "checkpoint_b.pt has changed since it was scored. Score it again." in error
    config = json.loads(scored.read_text())
    config["fairseq"]["dataset"]["batch_size"] = 3
    scored.write_text(json.dumps(config))
    assert call_report(scored) == 2
    assert "must hold a row with the settings of" in capsys.readouterr().err


def test_the_error_for_a_training_yaml_names_the_folder_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert call_report(Path(VIDEOCLIP)) == 2
    assert "mmpt report runs/demo/videoclip\n" in capsys.readouterr().err


def test_a_path_that_is_neither_a_folder_nor_a_yaml_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_report(tmp_path / "none") == 2
    expected = "none must be a training folder or an evaluation YAML, but there"
    assert expected in capsys.readouterr().err
