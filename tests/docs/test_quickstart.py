"""The notebook of the quick start runs from the first to the last cell, and is stored without
output.
"""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

nbformat = pytest.importorskip("nbformat", reason="the notebook needs the extra `docs`")
nbclient = pytest.importorskip(
    "nbclient", reason="the notebook runs with the extra `dev`"
)
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
SMALLER = {
    "--num-videos 200": "--num-videos 48",
    "--num-val 32": "--num-val 8",
    "max_epoch: 6": "max_epoch: 1",
}
"""Changes of the test to the notebook, so that it takes seconds."""


def test_the_notebook_has_no_output() -> None:
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.e2e
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    (tmp_path / "mmpt").symlink_to(ROOT / "mmpt")
    programs = Path(sys.executable).parent  # where `mmpt` is
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    text = NOTEBOOK.read_text()
    for shown, used in SMALLER.items():
        assert text.count(shown) == 1
        text = text.replace(shown, used)
    notebook = nbformat.reads(text, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=200, resources=resources).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.get("text", "") for output in outputs)
    assert (tmp_path / "runs/quickstart/checkpoint_best.pt").exists()
    assert re.search(r"R@10 \d+\.\d%, by chance \d+\.\d%", printed)
    assert any("image/png" in output.get("data", {}) for output in outputs), (
        "the heat map"
    )
