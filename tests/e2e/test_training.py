"""Whole jobs with `locallaunch.py`: training, resuming, scoring, two processes, and mistakes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import job_commands
from mmpt.cli import report
from mmpt.reporting.training_runs import loss_charts, read_training_runs
from mmpt.utils.checkpoint_file import load_checkpoint
from mmpt.utils.metrics_log import SPEEDS, read_metrics
from tests.support.jobs import (
    NORTON,
    ONE_EPOCH,
    SCORES,
    VIDEOCLIP,
    launch,
    train,
)

pytestmark = pytest.mark.e2e


def weights(
    save_dir: Path, name: str = "checkpoint_last.pt"
) -> dict[str, torch.Tensor]:
    return load_checkpoint(save_dir / name)["model"]


@pytest.fixture(scope="module")
def videoclip(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder and the log of a VideoCLIP run of two epochs in one process."""
    save_dir = tmp_path_factory.mktemp("runs") / "videoclip"
    return save_dir, train(
        VIDEOCLIP, corpus, save_dir, "fairseq.optimization.max_epoch=2"
    )


def test_a_run_logs_its_terms_and_saves_its_config(videoclip: tuple[Path, str]) -> None:
    save_dir, log = videoclip
    pace = (
        "clips_per_s",
        "videos_per_s",
        "tflops",
        "data_wait",
        "minutes_left",
        "memory_gb",
    )
    for name in ("clip_caption", "accuracy", *pace):
        assert re.search(rf"\| train \| .*{name} ", log), name
    assert re.search(r"\| valid \| epoch 002 .*loss ", log)
    assert "cosine within a batch" in log
    assert log.count("first update done") == 1
    for line in job_commands.TRAINING_PHASES.values():
        assert line == job_commands.ENDED or re.search(line, log, re.MULTILINE), line
    assert (save_dir / "config.yaml").is_file()
    assert sorted(path.name for path in (save_dir / "retri").glob("plan_*")) == [
        "plan_e1.json",
        "plan_e2.json",
    ]


def test_metrics_are_logged_once_per_update_and_validation(
    videoclip: tuple[Path, str],
) -> None:
    rows = read_metrics(videoclip[0])
    train = [row for row in rows if row["split"] == "train"]
    valid = [row for row in rows if row["split"] == "valid"]
    per_epoch = len(train) // 2
    wanted = [(1 + update // per_epoch, update + 1) for update in range(2 * per_epoch)]
    assert [(row["epoch"], row["update"]) for row in train] == wanted
    assert [row["update"] for row in valid] == [per_epoch, 2 * per_epoch]
    names = {"loss", "clip_caption", "accuracy"}
    assert names | {"lr", "gnorm", "memory_gb"} <= train[0].keys()
    assert names <= valid[0].keys()
    # A rate is known from the second update on.
    assert not SPEEDS & train[0].keys()
    assert {"videos_per_s", "tflops"} <= train[1].keys()


def test_a_report_shows_the_curves_of_the_run(videoclip: tuple[Path, str]) -> None:
    save_dir, _ = videoclip
    (training,) = read_training_runs([save_dir])
    # The only term of the loss, its accuracy, and no figures about speed.
    titles = ["clip-caption", "accuracy", "learning rate"]
    assert list(loss_charts([training])) == titles
    assert [line.epoch for line in training.hardness] == [1, 2]
    for line in training.hardness:
        assert line.mean_cosine > line.random_mean_cosine


def test_the_page_of_the_run_shows_that_it_is_finished(
    videoclip: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_dir, _ = videoclip
    page = tmp_path / "page.html"
    assert report.main([str(save_dir), "--out", str(page)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"finished: epoch 2 of 2, \d+ updates", lines[0])
    assert lines[1].startswith("checkpoint_best.pt: validation loss ")
    titles = ("clip-caption", "learning rate", "clips per second", "minutes per epoch")
    for title in titles:
        assert f"<figcaption>{title}</figcaption>" in page.read_text()


def test_norton_trains_layernorm_and_a_temperature_from_the_videoclip_checkpoint(
    corpus: Path, videoclip: tuple[Path, str], tmp_path: Path
) -> None:
    start = videoclip[0] / "checkpoint_best.pt"
    options = [
        f"fairseq.checkpoint.restore_file={start}",
        "loss.learnable_temperature=true",
    ]
    log = train(NORTON, corpus, tmp_path, ONE_EPOCH, *options, jobtype="local_small")
    assert re.search(
        r"\| train \| .*clip_caption .*video_paragraph .*temperature ", log
    )
    before, after = weights(start.parent, start.name), weights(tmp_path)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.split(".")[-2] == "LayerNorm" for name in moved)
    assert "holds no temperature" in log
    (scale,) = load_checkpoint(tmp_path / "checkpoint_last.pt")["criterion"].values()
    assert abs(float(scale) - np.log(1 / 0.07)) > 1e-4


def test_a_run_cannot_continue_with_other_trained_parameters(
    corpus: Path, videoclip: tuple[Path, str], tmp_path: Path
) -> None:
    """The training process finds the mistake, and the job ends with one message."""
    shutil.copy(videoclip[0] / "checkpoint_last.pt", tmp_path)
    log = train(VIDEOCLIP, corpus, tmp_path, "model.layernorm_only=true", exit_code=2)
    assert "Traceback" not in log
    assert "checkpoint_last.pt: the saved optimizer state is for" in log


def test_scoring_writes_a_row_per_checkpoint_and_prints_the_table(
    corpus: Path, videoclip: tuple[Path, str], tmp_path: Path
) -> None:
    best, last = (
        videoclip[0] / "checkpoint_best.pt",
        videoclip[0] / "checkpoint_last.pt",
    )
    arguments = [
        SCORES,
        "--jobtype",
        "local_predict",
        f"dataset.bert_name={corpus}/bert",
        f"dataset.vfeat_dir={corpus}/feat",
        f"dataset.test_path={corpus}/val_clips.json",
        f"eval.save_path={tmp_path}",
        f"fairseq.common_eval.path=[{best},{last}]",
    ]
    run = launch(arguments)
    assert run.returncode == 0, run.stderr
    assert re.search(
        r"^ +chance +checkpoint_best +checkpoint_last$", run.stdout, re.MULTILINE
    )
    assert "full video, DTW as published, R@1" in run.stdout
    for line in job_commands.SCORING_PHASES.values():
        output = run.stdout + run.stderr
        assert line == job_commands.ENDED or re.search(line, output, re.MULTILINE), line
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["checkpoint"] for row in rows] == [str(best), str(last)]
    videos = json.loads((corpus / "val_clips.json").read_text())["videos"]
    clips = sum(len(video["clips"]) for video in videos)
    assert rows[0]["chance"]["RetrievalMetric"]["R1"] == pytest.approx(1 / clips)


def test_broken_features_in_a_loader_worker_give_a_message_and_exit_code_2(
    corpus: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "corpus"
    shutil.copytree(corpus, damaged)
    path = damaged / "feat" / "train_1_data.npy"
    np.save(path, np.full_like(np.load(path), np.nan))
    options = {"jobtype": "local_small", "exit_code": 2}
    log = train(VIDEOCLIP, damaged, tmp_path / "run", "retri_epoch=9", **options)
    assert "NaN" in log
    assert any(
        name in log for name in (damaged / "how2_s3d_train.lst").read_text().split()
    )
