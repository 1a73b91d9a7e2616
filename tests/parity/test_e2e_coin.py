"""COIN and CrossTask against the original: aligned items, merged windows, metrics, and COIN through
the command.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.cli.scoring import predict
from mmpt.config import DatasetConfig
from mmpt.config.yaml_files import read_yaml
from mmpt.endtasks.coin import data as coin
from mmpt.endtasks.coin.data import COINActionSegmentationAligner
from mmpt.endtasks.crosstask import data as crosstask
from mmpt.endtasks.crosstask.data import CrossTaskAligner
from mmpt.endtasks.crosstask.evaluation import CrossTaskMetric, LocalisationOutputs, PlacedVideo
from mmpt.processors.window_aligner import average_windows, window_spans
from tests.parity.e2e_data import (
    GOLDEN,
    ROOT,
    e2e_config,
    make_e2e_files,
    predicted,
    printed,
    recorded,
    recorded_settings,
    write_hash_checkpoint,
)

RECORD = json.loads((GOLDEN / "downstream.json").read_text())
ZS, FT = "test_coin_zs", "test_coin_ft"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_e2e_files(tmp_path_factory.mktemp("e2e"))


def aligner_config(files: Path) -> DatasetConfig:
    return DatasetConfig(**{**RECORD["config"], "bert_name": f"{files}/tinybert"})


def assert_equals_record(item: dict, name: str) -> None:
    golden = np.load(GOLDEN / "downstream.npz")
    keys = [key for key in golden.files if key.startswith(f"{name}/")]
    assert len(keys) >= 5
    for key in keys:
        ours = item[key.partition("/")[2]].numpy()
        assert ours.dtype == golden[key].dtype, key
        np.testing.assert_array_equal(ours, golden[key], err_msg=key)


def test_coin_item(files: Path) -> None:
    label = RECORD["coin_label"]
    steps = [
        coin.Step(id=step, segment=(start, end), label="x")
        for start, end, step in zip(label["start"], label["end"], label["label"], strict=True)
    ]
    feature = np.load(GOLDEN / "downstream.npz")["video_feature_37x8"]
    aligner = COINActionSegmentationAligner(aligner_config(files), Split.TEST)
    item = aligner("a", feature, steps, random.Random(0))
    assert_equals_record(item, "COINActionSegmentationAligner")
    assert (item["video_len"], item["video_id"]) == (37, "a")


def test_crosstask_item(files: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(RECORD["crosstask_csv"])
    segments = crosstask.read_segments(tmp_path / "a.csv", 3)
    feature = np.load(GOLDEN / "downstream.npz")["video_feature_37x8"]
    aligner = CrossTaskAligner(aligner_config(files), Split.TEST)
    steps = crosstask.Steps(RECORD["crosstask_text"], segments)
    item = aligner(crosstask.TaskVideo("a", "16815"), feature, steps, random.Random(0))
    assert_equals_record(item, "CrossTaskAligner")
    assert (item["video_len"], item["video_id"], item["task"]) == (37, "a", "16815")


def test_merged_windows() -> None:
    golden = np.load(GOLDEN / "downstream.npz")
    ours = average_windows(golden["coin_window_logits"], window_spans(37, 8, 16))
    np.testing.assert_allclose(ours, golden["coin_merged_logits"], rtol=1e-6)  # 0


def test_crosstask_recall() -> None:
    golden = np.load(GOLDEN / "metrics.npz")
    expected = json.loads((GOLDEN / "metrics.json").read_text())["results"]["CrossTaskMetric"]
    videos = [
        PlacedVideo(
            *name.split("/")[1:], done=golden[name], placed=golden[name.replace("_true/", "_pred/")]
        )
        for name in golden.files
        if name.startswith("crosstask_true/")
    ]
    assert len(videos) == 6
    ours = CrossTaskMetric().compute(LocalisationOutputs(videos=videos))
    assert ours == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", [ZS, FT])
def test_coin_through_the_command(task: str, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the YAML includes another
    config = e2e_config(task, files)
    write_hash_checkpoint(config)
    predict(config, device=torch.device("cpu"), keep_predictions=True)
    arrays = predicted(files / task)
    for name, expected in recorded(task).items():
        np.testing.assert_array_equal(arrays[name], expected)
    assert arrays["video_len"].sum() == len(arrays["Y_true"])
    numbers = json.loads((files / task / "results.json").read_text())[0]["metrics"][
        "COINActionSegmentationMetric"
    ]
    line = next(line for line in reversed(printed(task)) if line.startswith("frame accuracy: "))
    assert numbers["frame_acc"] == pytest.approx(
        float(line.removeprefix("frame accuracy: ")), abs=1e-12
    )
    assert numbers["predicted_O"] == (1.0 if task == ZS else 0.0)


@pytest.mark.parametrize("task", [ZS, FT])
def test_the_yaml_has_the_recorded_settings(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    ours = read_yaml(f"projects/retri/norton/{task}.yaml")
    folder = "runs/retri/norton/" + ("coin/" if task == FT else "")
    assert ours["fairseq"].pop("common_eval") == {"path": f"{folder}checkpoint_best.pt"}
    assert ours.pop("eval") == {"save_path": folder}
    assert ours == recorded_settings(task)
