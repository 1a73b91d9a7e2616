"""Fixtures: an evaluation of the small corpus, with checkpoints to score."""

import json
from pathlib import Path

import pytest
import torch

from mmpt.tasks import Task
from tests.support.jobs import SCORES, evaluation
from tests.support.paths import ROOT


@pytest.fixture
def scored(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an evaluation YAML for the small corpus, in a folder with two checkpoints.

    checkpoint_b has random weights, and checkpoint_a gives all texts the same vector.
    """
    monkeypatch.chdir(ROOT)
    checkpoint, folder = f"{tmp_path}/run/checkpoint_b.pt", f"{tmp_path}/run/results"
    config = evaluation(
        SCORES, corpus, f"test_path={corpus}/val_clips.json", checkpoint, folder
    )
    torch.manual_seed(0)
    model = Task.from_config(config).build_model(pretrained=False)
    (tmp_path / "run").mkdir()
    torch.save(model.state_dict(), tmp_path / "run" / "checkpoint_b.pt")
    # All texts get the same vector, so that captions cannot find their clips.
    torch.nn.init.zeros_(model.text_encoder.encoder.layer[-1].output.LayerNorm.weight)
    torch.save(model.state_dict(), tmp_path / "run" / "checkpoint_a.pt")
    path = tmp_path / "scores.yaml"
    path.write_text(json.dumps(config.to_dict()))  # JSON is YAML
    return path
