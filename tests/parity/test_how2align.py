"""HTM-Align against the recorded output of the original's script.

Weights and features are computed by formula. The configuration is the released YAML.
"""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt.cli.scoring import predict
from mmpt.config import load_config
from tests.support.e2e_data import write_hash_checkpoint
from tests.support.formula import formula_features
from tests.support.paths import ROOT
from tests.support.recorded import record
from tests.support.tiny_bert import tiny_bert

RECORDED = record("htm_align")
SHIPPED = ROOT / "projects" / "retri" / "norton" / "test_how2align_zs.yaml"


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the files of the recording to the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("released.yaml").write_text(RECORDED["config"])
    tiny_bert(Path("tinybert"))
    features = Path("data/how2-align")
    features.mkdir(parents=True)
    (features / "htm_align.json").write_text(json.dumps(RECORDED["annotation"]))
    for v, video in enumerate(RECORDED["annotation"]):
        np.save(features / f"{video}.npy", formula_features(700 + v, 60 + 30 * v))


# The released YAML names no classes, no checkpoint and no metric.
@pytest.mark.parametrize("yaml", ["released.yaml", SHIPPED])
def test_recall_and_auc_equal_the_original(yaml: str | Path) -> None:
    overrides = ["fairseq.dataset.num_workers=0"]
    if yaml == SHIPPED:
        overrides += [
            "dataset.bert_name=tinybert",
            "model.num_hidden_video_layers=2",
            "eval.save_path=runs/e2e/",
            "fairseq.common_eval.path=runs/e2e/checkpoint_best.pt",
        ]
    config = load_config(yaml, overrides)
    assert config.checkpoint_paths == ("runs/e2e/checkpoint_best.pt",)
    path = write_hash_checkpoint(config)
    scores = predict(config, device=torch.device("cpu"), keep_predictions=True)
    numbers = ast.literal_eval(RECORDED["stdout_last"])
    found = scores.columns["e2e"]["How2AlignMetric"]
    # measured: recall 0, AUC 0 (equal to the last bit)
    assert {name: found[name] for name in numbers} == pytest.approx(numbers, abs=1e-9)
    with np.load(path.with_name(f"{config.name}-e2e-checkpoint_best.npz")) as arrays:
        assert arrays["similarity"].shape == arrays["covered"].shape
        rows = (row for rows in RECORDED["annotation"].values() for row in rows)
        assert arrays["aligned"].sum() == sum(row[0] for row in rows)


def test_the_shipped_yaml_holds_the_released_values() -> None:
    released, shipped = load_config("released.yaml"), load_config(SHIPPED)
    ours = {**shipped.to_dict()["dataset"], "bert_name": "tinybert"}
    assert ours == released.to_dict()["dataset"]
    assert shipped.metric == released.metric == ("How2AlignMetric",)
    assert shipped.predictor == released.predictor
    assert shipped.batch_size == released.batch_size == 1
