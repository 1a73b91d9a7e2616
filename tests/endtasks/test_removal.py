"""A benchmark is removed by removing its folder: everything else still works."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmpt.config.yaml_files import read_yaml
from tests.support.paths import ROOT

FOLDERS = sorted(
    path.parent for path in (ROOT / "mmpt" / "endtasks").glob("*/__init__.pyi")
)
YAMLS = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "projects").rglob("*.yaml")
)
OPEN_ALL = """
import json, sys
import mmpt.cli.main, mmpt.reporting.report
from mmpt.config import load_config
from mmpt.errors import ConfigError
from mmpt.evaluators import METRICS, PREDICTORS
from mmpt.evaluators.published import PUBLISHED
from mmpt.processors import ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS
from mmpt.tasks import Task

for registry in (ALIGNERS, META_PROCESSORS, TEXT_PROCESSORS, VIDEO_PROCESSORS, METRICS, PREDICTORS):
    list(registry)
problems = {}
for path in sys.argv[1:]:
    try:
        Task.from_config(load_config(path, import_fairseq=False))
        problems[path] = []
    except ConfigError as err:
        problems[path] = err.problems
metrics = {benchmark.metric for benchmark in PUBLISHED.values()}
print(json.dumps([problems, sorted(metrics - set(METRICS))]))
"""
"""Opens every YAML, and prints the mistakes in each and the metrics that are published but gone."""


def public_names(folder: Path) -> set[str]:
    """Returns the `__all__` of a folder's stub."""
    (last,) = (
        ast.literal_eval(node.value)
        for node in ast.parse((folder / "__init__.pyi").read_text()).body
        if isinstance(node, ast.Assign)
    )
    return set(last)


@pytest.mark.spawn
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_removing_its_folder_removes_a_benchmark(folder: Path, tmp_path: Path) -> None:
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "mmpt", tmp_path / "mmpt", ignore=skipped)
    shutil.copytree(ROOT / "projects", tmp_path / "projects")
    shutil.rmtree(tmp_path / "mmpt" / "endtasks" / folder.name)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, *YAMLS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    problems_by_path, unknown_metrics = json.loads(done.stdout.splitlines()[-1])
    assert unknown_metrics == []
    for path, problems in problems_by_path.items():
        values = re.findall(r"\w+", str(read_yaml(ROOT / path)))
        removed = public_names(folder).intersection(values)
        # Each removed class that the YAML names is one mistake, and nothing else is.
        for name in removed:
            assert [text for text in problems if f"is called `{name}`." in text], (
                path,
                problems,
            )
        assert len(problems) == len(removed), (path, problems)
