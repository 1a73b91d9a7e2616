"""The example benchmark of endtask.md runs as written, and also as a folder of the package."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpt.config import DatasetConfig, ModelConfig
from mmpt.inference.mmptmodel import MMPTModel
from mmpt.models import MMFusionSeparate
from tests.support.paths import ROOT

pytestmark = pytest.mark.e2e
PAGE = (ROOT / "endtask.md").read_text()
LABELS = ["cut the tomato", "heat the pan", "stir the soup"]
TARGETS = [0, 1, 2, 0, 1, 2, 0]
MMPT = "import sys; from mmpt.cli.main import main; sys.exit(main(sys.argv[1:]))"


def block(language: str) -> str:
    """Returns the first block of code in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(corpus: Path, tmp_path: Path) -> Path:
    """A folder with the YAML, data and a small checkpoint at the documented paths."""
    for name in ("projects", "data/mine/features", "runs/retri/norton"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "projects/labels_zs.yaml").write_text(block("yaml"))
    rng = np.random.default_rng(0)
    rows = ["video_id,label"]
    for n, target in enumerate(TARGETS):
        rows.append(f"v{n},{LABELS[target]}")
        features = rng.standard_normal((5 + n, 512), dtype=np.float32)
        np.save(tmp_path / f"data/mine/features/v{n}.npy", features)
    (tmp_path / "data/mine/labels.csv").write_text("\n".join(rows) + "\n")
    state = small_model(corpus).fusion.state_dict()
    torch.save({"model": state}, tmp_path / "runs/retri/norton/checkpoint_best.pt")
    return tmp_path


def small_model(corpus: Path) -> MMPTModel:
    """Returns a model with weights from a seed."""
    dataset = DatasetConfig(
        bert_name=str(corpus / "bert"), max_video_len=16, max_len=48
    )
    model = ModelConfig(num_hidden_video_layers=2)
    torch.manual_seed(0)
    fusion = MMFusionSeparate.from_config(dataset, model, pretrained=False)
    return MMPTModel(fusion.eval(), dataset, model)


def evaluate(folder: Path, corpus: Path) -> tuple[dict[str, Any], str, str]:
    """Runs the documented command with the sizes of the small model.

    Returns the row of the results, the report, and the output.
    """
    command = re.search(r"^`mmpt (train projects/labels_zs.+?)`", PAGE, re.MULTILINE)
    assert command
    sizes = [f"dataset.bert_name={corpus}/bert", "dataset.max_video_len=16"]
    sizes += ["dataset.max_len=48", "model.num_hidden_video_layers=2"]
    done = subprocess.run(
        [sys.executable, "-c", MMPT, *shlex.split(command[1]), *sizes],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = folder / "runs/retri/norton/labels"
    (row,) = json.loads((results / "results.json").read_text())
    return row, (results / "labels_zs-report.html").read_text(), done.stdout


def test_the_example_benchmark_is_scored(corpus: Path, folder: Path) -> None:
    (folder / "my_benchmark.py").write_text(block("python"))
    row, report, printed = evaluate(folder, corpus)
    features = [np.load(folder / f"data/mine/features/v{n}.npy") for n in range(7)]
    scores = small_model(corpus).similarity(features, LABELS)
    hits = scores.argmax(dim=1) == torch.tensor(TARGETS)
    assert row["metrics"]["TopOne"]["top1"] == pytest.approx(hits.float().mean().item())
    assert row["chance"]["TopOne"]["top1"] == 1 / 3
    assert "TopOne top1" in printed
    assert "TopOne top1" in report


INIT = (ROOT / "mmpt/endtasks/didemo/__init__.py").read_text()
STUB = """
from .data import LabelAligner, LabelMeta
from .evaluation import Classified, LabelPredictor, TopOne

__all__ = ["Classified", "LabelAligner", "LabelMeta", "LabelPredictor", "TopOne"]
"""
PICTURES = """

@prediction_sections.register
def _prediction_sections(outputs: Classified, run: EvaluationRun) -> list[Section]:
    from mmpt.endtasks.labels.report import sections

    return sections(outputs)
"""
REPORT = """
from mmpt.reporting import Section

def sections(outputs):
    return [Section("Labels", "labels/labels.html", {"targets": outputs.targets})]
"""
PUBLISHED = """
labels_zs:
  title: labels of videos
  setting: zero-shot
  metric: TopOne
  numbers: {top1: [41.5, null, null]}
"""


def test_the_example_can_be_a_folder_of_the_package(corpus: Path, folder: Path) -> None:
    shutil.copytree(ROOT / "mmpt", folder / "mmpt")
    # The classes are registered, and the module is divided into files.
    code = block("python")
    imports = "from mmpt.evaluators import METRICS, PREDICTORS\n"
    imports += "from mmpt.processors import ALIGNERS, META_PROCESSORS\n"
    imports += (
        "from mmpt.reporting import EvaluationRun, Section, prediction_sections\n"
    )
    head, classes = code.split("\n\n\n", 1)
    for name, registry in {
        "LabelMeta": "META_PROCESSORS",
        "LabelAligner": "ALIGNERS",
        "LabelPredictor": "PREDICTORS",
        "TopOne": "METRICS",
    }.items():
        line = f"class {name}("
        classes = classes.replace(line, f"@{registry}.register\n{line}")
    data, evaluation = classes.split("\n\n\n@dataclass")
    files = {
        "__init__.py": INIT,
        "__init__.pyi": STUB,
        "data.py": f"{head}\n{imports}\n{data}",
        "evaluation.py": f"{head}\n{imports}\n@dataclass{evaluation}{PICTURES}",
        "report.py": REPORT,
        "labels.html": "<p>{{ targets | length }} labels</p>",
        "published.yaml": PUBLISHED,
    }
    benchmark = folder / "mmpt/endtasks/labels"
    benchmark.mkdir()
    for name, text in files.items():
        (benchmark / name).write_text(text)
    yaml = block("yaml").replace("my_benchmark.", "")
    (folder / "projects/labels_zs.yaml").write_text(yaml)

    _, report, printed = evaluate(folder, corpus)
    assert "<p>7 labels</p>" in report
    assert "41.5" in report
    assert "classification, top 1" in printed
    # The page mentions each file.
    for name in files:
        assert f"`{name}`" in PAGE or name.endswith(".html"), name
