"""HTM-Align against what the original's own script printed: hash weights, features by formula, its
released YAML.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from tests.parity.e2e_data import write_hash_checkpoint
from tests.parity.formula import formula_features
from tests.tiny_bert import tiny_bert

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "htm_align.json").read_text())
NUMBERS = ast.literal_eval(RECORDED["stdout_last"])
ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "projects" / "retri" / "norton" / "test_how2align_zs.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the recording."""
    folder = tmp_path_factory.mktemp("htm")
    tiny_bert(folder / "tinybert")
    features = folder / "data" / "how2-align"
    features.mkdir(parents=True)
    (features / "htm_align.json").write_text(json.dumps(RECORDED["annotation"]))
    for v, video in enumerate(RECORDED["annotation"]):
        np.save(features / f"{video}.npy", formula_features(700 + v, 60 + 30 * v))
    return folder


@pytest.mark.parametrize("source", ["released", "shipped"])
def test_recall_and_auc_are_those_of_the_original(
    data: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    if source == "released":  # no classes, no checkpoint, no metric: as the original has it
        Path("released.yaml").write_text(RECORDED["config"])
        config = load_config("released.yaml", ["fairseq.dataset.num_workers=0"])
        assert config.checkpoint_paths == ("runs/e2e/checkpoint_best.pt",)
    else:
        overrides = [
            "dataset.bert_name=tinybert",
            "model.num_hidden_video_layers=2",
            "eval.save_path=runs/e2e/",
        ]
        overrides += [
            "fairseq.dataset.num_workers=0",
            "fairseq.common_eval.path=runs/e2e/checkpoint_best.pt",
        ]
        config = load_config(SHIPPED, overrides)
    path = write_hash_checkpoint(config)
    scores = predict(config, device=torch.device("cpu"), keep_predictions=True)
    found = scores.columns["e2e"]["How2AlignMetric"]
    # measured: recall 0, AUC 0 (equal to the last bit)
    assert found["Recall"] == pytest.approx(NUMBERS["Recall"], abs=1e-9)
    assert found["AUC"] == pytest.approx(NUMBERS["AUC"], abs=1e-9)
    with np.load(path.with_name(f"{config.name}-e2e-checkpoint_best.npz")) as arrays:
        assert arrays["similarity"].shape == arrays["covered"].shape
        assert arrays["aligned"].sum() == sum(
            row[0] for rows in RECORDED["annotation"].values() for row in rows
        )


def test_the_shipped_yaml_holds_the_released_values(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    Path("released.yaml").write_text(RECORDED["config"])
    released, shipped = load_config("released.yaml"), load_config(SHIPPED)
    ours = {**shipped.to_dict()["dataset"], "bert_name": "tinybert"}
    assert ours == released.to_dict()["dataset"]
    assert shipped.metric == released.metric == ("How2AlignMetric",)
    assert shipped.predictor == released.predictor
    assert shipped.batch_size == released.batch_size == 1
