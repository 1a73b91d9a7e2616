"""Fine-tuning on COIN and CrossTask from a released-format checkpoint, and scoring what comes
out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mmpt.batch import Split
from mmpt.cli.scoring import predict
from mmpt.config import load_config
from mmpt.datasets import MMDataset, collate
from mmpt.endtasks.crosstask.evaluation import CrossTaskMetric, CrossTaskPredictor
from mmpt.errors import CheckpointError
from mmpt.tasks import Task
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.crosstask_data import write_crosstask
from tests.fine_tuning import PRETRAINED, on_cpu, tiny_model, train
from tests.jobs import ROOT
from tests.parity.e2e_data import make_e2e_files

NORTON = "projects/retri/norton"


@pytest.fixture(autouse=True)
def _in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def small(files: Path, **dataset: str) -> list[str]:
    return [*tiny_model(files), *(f"dataset.{key}={value}" for key, value in dataset.items())]


def score(name: str, checkpoint: Path, folder: Path, overrides: list[str]) -> dict[str, float]:
    paths = [f"fairseq.common_eval.path={checkpoint}", f"eval.save_path={folder}"]
    config = load_config(f"{NORTON}/{name}.yaml", [*overrides, *paths])
    return predict(config, device=torch.device("cpu")).rows[0]["metrics"][config.metric[0]]


def test_coin_head_starts_afresh_and_is_scored(tmp_path: Path) -> None:
    files, save_dir = make_e2e_files(tmp_path / "files"), tmp_path / "run"
    folder = f"{files}/data/coin"
    overrides = small(files, vfeat_dir=f"{folder}/coin_feature_fps30_512")
    splits = [f"dataset.{split}_path={folder}/COIN.json" for split in ("train", "val")]
    training = on_cpu(save_dir, num_epochs=2)  # the first update has a learning rate of 0
    log = train(f"{NORTON}/coin_ft.yaml", [*overrides, *splits, *training])
    assert re.search(
        r"kept the model's own video_encoder\.classifier\.bias, video_encoder\.classifier\.weight",
        log,
    )
    assert re.search(r"\| train \| .*cross_entropy .*accuracy .*num_updates 2\b", log)
    assert re.search(r"\| valid \| .*cross_entropy ", log)
    before, after = (
        load_checkpoint(path)["model"] for path in (PRETRAINED, save_dir / "checkpoint_last.pt")
    )
    new = [f"mmmodel.video_encoder.classifier.{name}" for name in ("weight", "bias")]
    assert [key for key in after if key not in before] == new
    moved = {
        key.split(".")[1]
        for key in after
        if key in before and not torch.equal(before[key], after[key])
    }
    assert moved == {"video_encoder"}  # the text tower takes no part

    tests = [*overrides, f"dataset.test_path={folder}/COIN.json"]
    numbers = score("test_coin_ft", save_dir / "checkpoint_last.pt", tmp_path, tests)
    assert 0 <= numbers["frame_acc"] <= 1
    # The classifier is left aside.
    score("test_coin_zs", save_dir / "checkpoint_last.pt", tmp_path, tests)
    with pytest.raises(CheckpointError, match=r"2 in the model only:\n.*video_encoder\.classifier"):
        score("test_coin_ft", PRETRAINED, tmp_path, tests)  # it was never trained


def test_crosstask_is_tuned_and_scored(tmp_path: Path) -> None:
    files, save_dir = make_e2e_files(tmp_path / "files"), tmp_path / "run"
    dataset = write_crosstask(tmp_path / "crosstask", held_out=("v101-03", "v205-00", "v205-01"))
    overrides = [*small(files, **dataset), "dataset.n_train=2"]
    splits = [f"dataset.{split}_path={dataset['train_csv_path']}" for split in ("train", "val")]
    log = train(f"{NORTON}/crosstask_ft.yaml", [*overrides, *splits, *on_cpu(save_dir)])
    # Two videos of each primary task.
    assert re.search(r"\| train \| .*binary_cross_entropy .*num_updates 4\b", log)
    assert re.search(r"\| valid \| .*binary_cross_entropy ", log)
    tests = [*overrides, f"dataset.test_path={dataset['val_csv_path']}"]
    tuned = score("test_crosstask_ft", save_dir / "checkpoint_best.pt", tmp_path, tests)
    zero_shot = score("test_crosstask_zs", PRETRAINED, tmp_path, tests)
    assert tuned.keys() == zero_shot.keys() == {"101", "recall"}
    assert 0 <= tuned["recall"] <= 1


def test_crosstask_learns_what_the_features_show(tmp_path: Path) -> None:
    files = make_e2e_files(tmp_path / "files")
    dataset = write_crosstask(tmp_path / "crosstask", held_out=("v101-03", "v205-00", "v205-01"))
    splits = [f"dataset.{split}_path={dataset['train_csv_path']}" for split in ("train", "val")]
    overrides = [*small(files, **dataset), "dataset.n_train=4", "model.random_init=true", *splits]
    task = Task.from_config(load_config(f"{NORTON}/crosstask_ft.yaml", overrides))
    torch.manual_seed(0)
    model, loss = task.build_model(pretrained=True), task.build_loss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    batches = {}
    for split in (Split.TRAIN, Split.VALID):
        items = task.build_dataset(split)
        assert isinstance(items, MMDataset)
        batches[split] = [task.flatten(collate([items[index]])) for index in range(len(items))]
    for _ in range(8):
        for batch in batches[Split.TRAIN]:
            optimizer.zero_grad()
            loss(**{**batch, **model(**batch)}).total.backward()
            optimizer.step()
    outputs = CrossTaskPredictor(task.config.dataset)(
        model, batches[Split.VALID], torch.device("cpu")
    )
    metric = CrossTaskMetric()
    assert metric.chance(outputs)["recall"] < 0.3
    assert metric.compute(outputs)["recall"] > 0.8  # got 1.0, before training 0.25
