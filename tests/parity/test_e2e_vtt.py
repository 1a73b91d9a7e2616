"""MSR-VTT zero-shot through the scoring command's own path against what the original saved and
printed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config.yaml_files import read_yaml
from tests.parity.e2e_data import (
    ROOT,
    e2e_config,
    make_e2e_files,
    predicted,
    printed,
    recorded,
    recorded_settings,
    write_hash_checkpoint,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_e2e_files(tmp_path_factory.mktemp("e2e"))


def score(
    task: str, files: Path, *more: str
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Run `task` with the recorded weights; return the saved arrays and the metrics."""
    config = e2e_config(task, files, "norton", *more)
    write_hash_checkpoint(config)
    scores = predict(config, device=CPU, keep_predictions=True)
    return predicted(files / task), scores.rows[0]["metrics"]


def test_retrieval(files: Path) -> None:
    arrays, metrics = score("test_vtt_zs", files)
    merged = recorded("test_vtt_zs")["merged"]
    np.testing.assert_allclose(arrays["scores"], merged, rtol=0, atol=1e-4)  # 1.4e-5
    assert arrays["video_id"].tolist() == [f"video{7000 + n}" for n in range(24)]
    numbers = metrics["RetrievalMetric"]
    line = " - ".join(f"R@{k}: {numbers[f'R{k}']:.4f}" for k in (1, 5, 10))
    assert f"{line} - Median R: {numbers['MR']:.1f}" in printed("test_vtt_zs")


@pytest.mark.parametrize("batch_size", [256, 7])
def test_multiple_choice(files: Path, batch_size: int) -> None:
    arrays, metrics = score("test_vttqa_zs", files, f"fairseq.dataset.batch_size={batch_size}")
    np.testing.assert_array_equal(arrays["predictions"], recorded("test_vttqa_zs")["merged"])
    assert f"acc: {metrics['QAMetric']['acc']:.4f}" in printed("test_vttqa_zs")


@pytest.mark.parametrize("task", ["test_vtt_zs", "test_vttqa_zs"])
def test_the_yaml_has_the_recorded_settings(task: str) -> None:
    ours = read_yaml(ROOT / "projects" / "retri" / "norton" / f"{task}.yaml")
    assert ours["fairseq"].pop("common_eval") == {"path": "runs/retri/norton/checkpoint_best.pt"}
    assert ours.pop("eval") == {"save_path": "runs/retri/norton/"}
    was = recorded_settings(task)
    assert {key: value for key, value in ours["fairseq"].items() if value} == was.pop("fairseq")
    assert {**ours, "fairseq": None} == {**was, "fairseq": None}
