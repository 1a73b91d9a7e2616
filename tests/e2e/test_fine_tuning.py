"""Fine-tuning on MSR-VTT from a released-format checkpoint of other lengths, and scoring what comes
out.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.batch import Split
from mmpt.cli.preflight import check_parts
from mmpt.cli.scoring import predict
from mmpt.config import RunConfig, load_config
from mmpt.datasets import collate
from mmpt.errors import DataError
from mmpt.tasks import Task
from mmpt.utils.checkpoint_file import load_checkpoint
from tests.fine_tuning import PRETRAINED, on_cpu, tiny_model, train
from tests.jobs import ROOT
from tests.parity.e2e_data import make_e2e_files
from tests.parity.formula import fill_by_formula

NORTON = "projects/retri/norton"


def sizes_and_files(files: Path) -> list[str]:
    return [*tiny_model(files), f"dataset.vfeat_dir={files}/data/msrvtt/msrvtt_feature_fps30_512"]


def training_overrides(files: Path, save_dir: Path) -> list[str]:
    data = files / "data" / "msrvtt"
    return [
        *sizes_and_files(files),
        f"dataset.train_path={data}/MSRVTT_train.9k.csv",
        f"dataset.val_path={data}/MSRVTT_JSFUSION_test.csv",
        f"dataset.json_path={data}/MSRVTT_data.json",
        *on_cpu(save_dir),
    ]


def scoring(files: Path, name: str, checkpoint: Path, test_list: str) -> RunConfig:
    overrides = [
        *sizes_and_files(files),
        f"dataset.test_path={files}/data/msrvtt/{test_list}",
        f"fairseq.common_eval.path={checkpoint}",
        f"eval.save_path={checkpoint.parent}",
    ]
    return load_config(f"{NORTON}/{name}.yaml", overrides)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    return make_e2e_files(tmp_path / "files")


def test_a_job_fine_tunes_all_weights_and_its_best_checkpoint_is_scored(
    files: Path, tmp_path: Path
) -> None:
    save_dir = tmp_path / "run"
    overrides = [*training_overrides(files, save_dir), "fairseq.dataset.batch_size=64"]
    log = train(f"{NORTON}/vtt_ft.yaml", overrides)
    assert re.search(r"num_updates 3\b", log)  # 8 videos, 20 times each, in batches of 64
    assert re.search(r"\| train \| .*clip_caption ", log)
    assert re.search(r"\| valid \| .*loss ", log)
    before = load_checkpoint(PRETRAINED)["model"]
    after = load_checkpoint(save_dir / "checkpoint_best.pt")["model"]
    moved = [name for name in after if not torch.equal(before[name], after[name])]
    assert any("LayerNorm" not in name for name in moved)
    config = scoring(
        files, "test_vtt_ft", save_dir / "checkpoint_best.pt", "MSRVTT_JSFUSION_test.csv"
    )
    numbers = predict(config, device=torch.device("cpu")).rows[0]["metrics"]["RetrievalMetric"]
    assert 0 <= numbers["R1"] <= numbers["R10"] <= 1


def test_multiple_choice_is_trained_on_captions_for_videos(files: Path, tmp_path: Path) -> None:
    task = Task.from_config(
        load_config(f"{NORTON}/vttqa_ft.yaml", training_overrides(files, tmp_path))
    )
    training, validation = task.build_dataset(Split.TRAIN), task.build_dataset(Split.VALID)
    assert training is not None
    assert validation is not None
    assert (len(training), len(validation)) == (8 * 20, 24)
    model = fill_by_formula(task.build_model(pretrained=False), "hash").eval()
    batch = task.flatten(collate([training.item(index, 1) for index in range(8)]))
    output = model(**batch)
    loss = task.build_loss()(**batch, **output).total
    scores = (output["pooled_video"] @ output["pooled_text"].T).detach().numpy().astype(np.float64)
    naive = -np.mean(
        [row[n] - np.log(np.exp(row - row.max()).sum()) - row.max() for n, row in enumerate(scores)]
    )
    assert loss.item() == pytest.approx(naive, rel=1e-5)  # 1e-7
    loss.backward()
    assert all(
        weight.grad is not None for name, weight in model.named_parameters() if "pooler" not in name
    )


def test_other_files_in_the_yaml_end_with_one_message(files: Path, tmp_path: Path) -> None:
    """Another data set's list, and too many videos without features, are found before a training
    process starts.
    """
    data = files / "data"
    for override, message in (
        (f"dataset.train_path={data}/msrvtt/MSR_MC_test.csv", "must have the column video_id"),
        (f"dataset.json_path={data}/coin/COIN.json", "must be MSR-VTT's file"),
        (
            f"dataset.vfeat_dir={data}/coin/coin_feature_fps30_512",
            "8 of the 8 videos of the train split have no features",
        ),
    ):
        config = load_config(
            f"{NORTON}/vtt_ft.yaml", [*training_overrides(files, tmp_path), override]
        )
        with pytest.raises(DataError, match=re.escape(message)):
            check_parts(config)
